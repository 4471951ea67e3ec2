import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bastion.auth.users_file import HASHER, UsersFile
from tests.auth.test_local import LINE
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {file: people.yaml}}\n")
    return path


def add(bastion: Run, config: Path, name: str, *options: object, password: str | None = "correct horse\n") -> str:
    stdin = ["--password-stdin"] if password is not None else []
    done = bastion("users", "add", name, *stdin, *options, "-c", config, input=password or "")
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_add_and_list(bastion: Run, config: Path) -> None:
    said = add(bastion, config, "alice", "--group", "developers", "--group", "on call")
    assert said == f"alice added to {config.parent}/people.yaml\n"
    keys = config.parent / "keys.pub"
    keys.write_text(f"# alice's\n\n{LINE}\nrestrict,pty {LINE}\n")
    add(bastion, config, "bob", "--authorized-keys", keys, password=None)
    add(bastion, config, "carol", "--authorized-keys", keys)
    users = UsersFile(config.parent / "people.yaml").users()
    assert HASHER.verify(users["alice"].password or "", "correct horse")
    assert users["alice"].groups == ["developers", "on call"]
    assert (users["bob"].password, users["bob"].authorized_keys) == (None, [LINE, f"restrict,pty {LINE}"])
    assert HASHER.verify(users["carol"].password or "", "correct horse")
    done = bastion("users", "list", "-c", config)
    assert done.stdout.splitlines() == [
        "alice  password            developers, on call",
        "bob    2 keys",
        "carol  password, 2 keys",
    ]


def test_passwd(bastion: Run, config: Path) -> None:
    add(bastion, config, "alice", "-g", "developers")
    done = bastion("users", "passwd", "alice", "--password-stdin", "-c", config, input="café\nmore\n")
    assert (done.returncode, done.stdout) == (0, "alice has a new password\n")
    alice = UsersFile(config.parent / "people.yaml").users()["alice"]
    assert HASHER.verify(alice.password or "", "café")
    assert alice.groups == ["developers"]


@pytest.mark.parametrize(
    ("arguments", "password", "sentence"),
    [
        (["add", "alice"], "correct horse\n", "alice is there already"),
        (["add", "bob"], "\n", "the password is empty"),
        (["add", "bob"], "", "the password is empty"),
        (["passwd", "alice"], "\u00ad\n", "the password is empty"),
        (["add", "bob"], "a\tb\n", "characters that no password can have"),
        (["add", "bob"], "x" * 2000, "more than 1024 bytes"),
        (["add", "b/ob"], "correct horse\n", "'b/ob' is no user name"),
        (["add", "b\x1b[2Job"], "correct horse\n", r"'b\x1b[2Job' is no user name"),
        (["add", "bob", "-g", "a,b"], "correct horse\n", "a group name without commas"),
        (["passwd", "bob"], "correct horse\n", "there is no user bob"),
        (["add", "bob", "--authorized-keys", "none.pub"], "correct horse\n", "none.pub can not be read"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_refused_with_a_sentence(
    bastion: Run, config: Path, arguments: list[str], password: str, sentence: str
) -> None:
    add(bastion, config, "alice")
    before = (config.parent / "people.yaml").read_bytes()
    done = bastion("users", *arguments, "--password-stdin", "-c", config, input=password, cwd=config.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert (config.parent / "people.yaml").read_bytes() == before


def test_keys_that_would_not_be_accepted_are_all_named(bastion: Run, config: Path) -> None:
    keys = config.parent / "keys.pub"
    keys.write_text(f"{LINE}\nssh-ed25519 broken\nno-pty {LINE}\n")
    done = bastion("users", "add", "bob", "--authorized-keys", keys, "-c", config)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{keys}:2: no key: 'ssh-ed25519 AAAA... comment' is right, with options in front of it if any",
        f"{keys}:3: the bastion can not honour no-pty",
    ]
    keys.write_text("# none\n")
    done = bastion("users", "add", "bob", "--authorized-keys", keys, "-c", config)
    assert done.stderr == f"{keys} has no key in it\n"


def test_no_local_users_and_no_file(bastion: Run, config: Path) -> None:
    done = bastion("users", "list", "-c", config)
    assert "people.yaml is missing: `bastion users add NAME` makes it" in done.stderr
    config.write_text("auth: {ldap: {servers: ['ldaps://a'], search_base: dc=example}}\n")
    done = bastion("users", "list", "-c", config)
    assert "no section auth.local" in done.stderr


def test_on_a_terminal_the_password_is_asked_twice_and_not_shown(config: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bastion", "users", "add", "alice", "-c", str(config)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""

    def answer(prompt: bytes, words: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while not seen.endswith(prompt):
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 1024)
        os.write(ours, words + b"\n")
        seen += b"|"

    answer(b"Password: ", b"")
    answer(b"Password: ", b"correct horse")
    answer(b"Password, again: ", b"correct hose")
    answer(b"Password: ", b"correct horse")
    answer(b"Password, again: ", b"correct horse")
    assert process.wait(30) == 0
    os.close(ours)
    assert b"hors" not in seen
    assert HASHER.verify(UsersFile(config.parent / "people.yaml").users()["alice"].password or "", "correct horse")
