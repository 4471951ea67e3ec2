"""One-time codes, in front of stock clients: after a key, after a password, and by no way around."""

import asyncio
import contextlib
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pyotp
import pytest
from pydantic import SecretStr

from bastion.audit.database import create_engine
from bastion.audit.enrolments import Enrolments
from bastion.auth.totp import encrypted, load_key, new_secret
from bastion.config import Database
from tests.e2e.clients import dbclient, plink
from tests.e2e.terminal import on_terminal
from tests.servers.bastion import BASTION, PASSWORD, Bastion, serving
from tests.servers.engine import Engine

BUSY = "alice+web.busy.1"


def enrol(folder: Path, user: str, *options: str) -> str:
    command = [*BASTION, "users", "enrol-totp", user, *options, "-c", f"{folder}/config.yaml"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Device:
    """The app on alice's phone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.secret = ""

    def code(self) -> str:
        """The first code of a new secret: a code counts once, and a second of the same secret would take 30 s."""
        self.secret = new_secret()
        secret = encrypted(load_key(self._folder / "keys/totp_key"), "alice", self.secret)

        async def enrol() -> None:
            database = create_engine(Database(url=SecretStr(f"sqlite+aiosqlite:///{self._folder}/bastion.db")))
            await Enrolments(database).enrol("alice", secret)
            await database.dispose()

        asyncio.run(enrol())
        return self.now()

    def now(self) -> str:
        return str(pyotp.TOTP(self.secret).now())


@contextlib.contextmanager
def enrolled(folder: Path, engine: Engine, ask: str = "enrolled", **changes: Any) -> Iterator[tuple[Bastion, Device]]:
    """A bastion where alice has a second factor and bob has none."""
    (folder / "config.yaml").write_text("auth: {local: {}, totp: {}}\n")
    made = subprocess.run([*BASTION, "keys", "init", "-c", f"{folder}/config.yaml"], check=True, capture_output=True)
    assert b"totp_key (new)" in made.stdout
    auth = {"local": {"file": "users.yaml"}, "totp": {"ask": ask}}
    with serving(folder, engine.url, auth=auth, **changes) as bastion:
        device = Device(folder)
        device.code()  # she is enrolled
        yield bastion, device


@pytest.fixture(scope="session")
def both(servers_folder: Path, bastion: Bastion, engine: Engine) -> Iterator[tuple[Bastion, Device]]:
    folder = servers_folder / "second-factors"
    folder.mkdir()
    for name in ("users.yaml", "alice_key", "bob_key", "alice_key.pub"):
        shutil.copy(bastion.folder / name, folder / name)
    shutil.copytree(bastion.folder / "keys", folder / "keys")
    with enrolled(folder, engine) as started:
        yield started


def on_a_terminal(bastion: Bastion, login: str, words: str, *options: str, key: str | None = None) -> list[str]:
    command = bastion.ssh_command(login, words, key=key)
    return [*command[:1], "-o", "BatchMode=no", "-o", "LogLevel=INFO", *options, *command[1:]]


def test_a_key_then_a_code(both: tuple[Bastion, Device]) -> None:
    bastion, device = both
    with on_terminal(on_a_terminal(bastion, BUSY, "echo in")) as terminal:
        terminal.expect(rb"Verification code: ")
        terminal.type(device.code().encode() + b"\r")
        terminal.expect(rb"\bin\r\n")
    event = bastion.wait_for_event("user.login", user="alice")
    assert (event["method"], event["second_factor"]) == ("local-publickey", "totp")


def test_a_password_then_a_code_by_either_method(both: tuple[Bastion, Device]) -> None:
    bastion, device = both
    for methods, prompt in (("password,keyboard-interactive", b"password: "), ("keyboard-interactive", b"Password: ")):
        command = on_a_terminal(bastion, BUSY, "echo in", "-o", f"PreferredAuthentications={methods}")
        with on_terminal(command) as terminal:
            terminal.expect(prompt)
            terminal.type(PASSWORD.encode() + b"\r")
            terminal.expect(rb"Verification code: ")
            terminal.type(device.code().encode() + b"\r")
            terminal.expect(rb"\bin\r\n")
        assert bastion.events("user.login", user="alice")[-1]["method"] == "local-password"


def test_what_is_wrong_is_said_and_the_next_right_code_lets_in(both: tuple[Bastion, Device]) -> None:
    bastion, device = both
    code = device.code()
    with on_terminal(on_a_terminal(bastion, BUSY, "echo in")) as terminal:
        terminal.expect(rb"Verification code: ")
        terminal.type(b"000000\r")
        terminal.expect(rb"The code is wrong\..*Verification code: ")
        terminal.type(code.encode() + b"\r")
        terminal.expect(rb"\bin\r\n")
    with on_terminal(on_a_terminal(bastion, BUSY, "echo in")) as terminal:
        terminal.expect(rb"Verification code: ")
        terminal.type(code.encode() + b"\r")  # within the same minute: it would be wrong later
        terminal.expect(rb"This code was used already\. Wait for the next one\..*Verification code: ")
        terminal.type(device.code().encode() + b"\r")
        terminal.expect(rb"\bin\r\n")
    bastion.wait_for_event("user.login_failed", user="alice", method="keyboard-interactive", reason="wrong_code")
    bastion.wait_for_event("user.login_failed", user="alice", method="keyboard-interactive", reason="code_replayed")


def test_who_has_no_second_factor_is_not_asked(both: tuple[Bastion, Device]) -> None:
    bastion, _ = both
    assert bastion.ssh("bob+vault.db.1", "echo in").stdout == b"in\n"


def test_plink_and_dbclient_and_paramiko(both: tuple[Bastion, Device]) -> None:
    bastion, device = both
    command = plink(bastion, BUSY, "echo in", password=False, terminal=False).command
    command[command.index("-batch")] = "-no-antispoof"
    with on_terminal(command) as terminal:
        terminal.expect(rb"Verification code: ")
        terminal.type(device.code().encode() + b"\r")
        terminal.expect(rb"\bin\r?\n")
    with on_terminal(dbclient(bastion, BUSY, "echo in", password=False, terminal=False).command) as terminal:
        terminal.expect(rb"Verification code: ")
        terminal.type(device.code().encode() + b"\r")
        terminal.expect(rb"\bin\r?\n")
    with contextlib.closing(transport(bastion)) as client:
        key = paramiko.Ed25519Key.from_private_key_file(f"{bastion.folder}/alice_key")
        assert client.auth_publickey(BUSY, key) == ["keyboard-interactive"]
        assert client.auth_interactive(BUSY, lambda *_: [device.code()]) == []
        channel = client.open_session()
        channel.exec_command("echo in")
        assert channel.makefile().read() == b"in\n"


# No way around.


def transport(bastion: Bastion) -> paramiko.Transport:
    made = paramiko.Transport(("127.0.0.1", bastion.port))
    made.start_client(timeout=15)
    return made


def test_one_factor_opens_nothing(both: tuple[Bastion, Device]) -> None:
    """A password and a key are two things, but one factor twice; nor is half of it enough for a channel."""
    bastion, _ = both
    key = paramiko.Ed25519Key.from_private_key_file(f"{bastion.folder}/alice_key")
    logins = len(bastion.events("user.login", user="alice"))
    with contextlib.closing(transport(bastion)) as client:
        assert client.auth_password(BUSY, PASSWORD) == ["keyboard-interactive"]
        by_key = functools.partial(client.auth_publickey, BUSY, key)
        by_password = functools.partial(client.auth_password, BUSY, PASSWORD, fallback=False)
        for again in (by_key, by_password):
            with pytest.raises(paramiko.BadAuthenticationType) as caught:
                again()
            assert caught.value.allowed_types == ["keyboard-interactive"]
        with pytest.raises(paramiko.AuthenticationException):
            client.auth_interactive(BUSY, lambda *_: ["000000"])
        with pytest.raises(paramiko.AuthenticationException):
            client.auth_interactive(BUSY, lambda *_: [])
        assert not client.is_authenticated()
        with pytest.raises((paramiko.SSHException, EOFError)):
            client.open_session(timeout=15)
    for words in ([], ["echo in"], ["-s", "sftp"]):
        done = bastion.ssh(BUSY, *words)
        assert (done.stdout, done.returncode) == (b"", 255)
        assert b"Permission denied (keyboard-interactive)." in done.stderr
    assert len(bastion.events("user.login", user="alice")) == logins
    assert bastion.events("session.start", user="alice") == [] or logins


def test_codes_are_counted_as_passwords_are(both: tuple[Bastion, Device]) -> None:
    bastion, _ = both
    key = paramiko.Ed25519Key.from_private_key_file(f"{bastion.folder}/alice_key")
    with contextlib.closing(transport(bastion)) as client:
        client.auth_publickey(BUSY, key)
        for _ in range(6):
            with pytest.raises(paramiko.AuthenticationException):
                client.auth_interactive(BUSY, lambda *_: ["000000"])
        with pytest.raises((paramiko.SSHException, EOFError)):
            client.auth_interactive(BUSY, lambda *_: ["000000"])
        assert not client.is_active()
    bastion.wait_for_event("user.login_failed", user="alice", reason="too_many_tries")


def test_an_unknown_user_and_a_wrong_password_read_the_same(both: tuple[Bastion, Device]) -> None:
    bastion, _ = both
    assert bastion.ssh("bob+vault.db.1", "true").returncode == 0  # the host key is known
    seen = set()
    for user in ("alice", "bob", "nobody"):
        options = ("-o", "PreferredAuthentications=keyboard-interactive", "-o", "NumberOfPasswordPrompts=1")
        command = on_a_terminal(bastion, f"{user}+web.busy.1", "echo in", *options, key="bob")
        with on_terminal(command) as terminal:
            terminal.expect(rb"Password: ")
            terminal.type(b"wrong\r")
            assert terminal.wait() == 255
            seen.add(terminal.transcript.replace(user.encode(), b"USER").replace(b"\r", b""))
    assert len(seen) == 1


def test_the_secret_is_in_no_file(both: tuple[Bastion, Device]) -> None:
    bastion, device = both
    secret = device.secret.encode()
    for path in bastion.folder.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def test_a_secret_that_was_taken_away_or_replaced(folder: Path, engine: Engine) -> None:
    with enrolled(folder, engine) as (bastion, device):
        another = pyotp.parse_uri(enrol(folder, "alice").splitlines()[0])
        with on_terminal(on_a_terminal(bastion, BUSY, "echo in")) as terminal:
            terminal.expect(rb"Verification code: ")
            terminal.type(device.now().encode() + b"\r")
            terminal.expect(rb"The code is wrong.*Verification code: ")
            terminal.type(another.now().encode() + b"\r")
            terminal.expect(rb"\bin\r\n")
        assert enrol(folder, "alice", "--remove") == "alice has no second factor any more\n"
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"


# By rule.


def test_where_a_rule_wants_one(folder: Path, engine: Engine) -> None:
    """alice may enter web by its label, and vault by the rule, which wants a code of bob as well, its owner."""
    rules = [{"users": ["alice"], "apps": ["vault"], "second_factor": True}]
    with enrolled(folder, engine, ask="by_rule", access={"rules": rules}) as (bastion, device):
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"
        with on_terminal(on_a_terminal(bastion, "alice+vault.db.1", "echo in")) as terminal:
            terminal.expect(rb"Verification code: ")
            terminal.type(device.code().encode() + b"\r")
            terminal.expect(rb"\bin\r\n")
        done = bastion.ssh("bob+vault.db.1", "echo in")
        assert (done.stdout, done.returncode) == (b"", 1)
        assert b"The container vault.db.1 can be entered only by who has signed in with a second factor" in done.stderr
        bastion.wait_for_event("access.denied", user="bob", reason="second_factor_needed")
        assert b"Permission denied (keyboard-interactive)." in bastion.ssh("alice", "true").stderr


def test_where_everyone_needs_one(folder: Path, engine: Engine) -> None:
    with enrolled(folder, engine, ask="everyone") as (bastion, _):
        done = bastion.ssh("bob+vault.db.1", "true")
        assert done.returncode == 255
        assert b"A second factor is needed here, and you have none yet" in done.stderr
        bastion.wait_for_event("user.login_failed", user="bob", reason="second_factor_needed")


def test_the_terminal_shows_a_qr_code(both: tuple[Bastion, Device]) -> None:
    bastion, _ = both
    uri, *lines = enrol(bastion.folder, "carol").splitlines()
    assert re.fullmatch(r"otpauth://totp/bastion:carol\?secret=[A-Z2-7]{32}&issuer=bastion", uri)
    assert len(lines) > 15
    assert set("".join(lines)) <= set("\x1b[0123456789;m █▀▄")
    event = bastion.wait_for_event("user.second_factor", user="carol")
    assert (event["change"], bool(event["by"])) == ("enrolled", True)
