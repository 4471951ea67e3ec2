import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth import users_file
from bastion.auth.users_file import HASHER, User, UsersFile, UsersFileError, _parsed, changing_users

HASH = HASHER.hash("correct horse")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    with changing_users(path) as users:
        users["alice"] = User(password=HASH, groups=["developers"], authorized_keys=["# none"])
    return path


def test_the_hash_costs_what_it_should() -> None:
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_written_and_read(path: Path) -> None:
    assert path.stat().st_mode & 0o7777 == 0o600
    assert dict(UsersFile(path).users()) == {
        "alice": User(password=HASH, groups=["developers"], authorized_keys=["# none"])
    }
    assert path.read_text().startswith("# Written by `bastion users`")
    assert list(path.parent.iterdir()) == [path]


def test_a_change_is_seen(path: Path) -> None:
    file = UsersFile(path)
    assert set(file.users()) == {"alice"}
    for name in ("bob", "carol"):
        with changing_users(path) as users:
            users[name] = User(password=HASH)
        assert name in file.users()
    # in place, of the same length, and with the old time put back
    times = path.stat()
    path.write_text(path.read_text().replace("carol", "caral"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert set(file.users()) == {"alice", "bob", "caral"}


def test_what_has_not_changed_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = UsersFile(path)
    monkeypatch.setattr(users_file.time, "time_ns", lambda: path.stat().st_ctime_ns + 1_000_000_000)
    first = file.users()
    assert file.users() is first
    monkeypatch.undo()
    os.utime(path)
    assert file.users() is not first


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666, 0o777])
def test_others_may_not_read_or_change_it(path: Path, mode: int) -> None:
    file = UsersFile(path)
    file.users()
    path.chmod(mode)
    with pytest.raises(UsersFileError, match=f"mode {mode:04o}.*chmod 600"):
        file.users()
    with pytest.raises(UsersFileError, match="chmod 600"), changing_users(path):
        pass
    path.chmod(0o640)
    assert "alice" in file.users()


def test_a_stranger_may_not_own_it(path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(UsersFileError, match="belongs to user id 12345"):
        UsersFile(path).users()


def test_it_is_missing_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsersFileError, match=r"users.yaml is missing: `bastion users add NAME` makes it"):
        UsersFile(tmp_path / "users.yaml").users()
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(UsersFileError, match=r"no regular file"):
            UsersFile(path).users()
    with (
        pytest.raises(UsersFileError, match="make this folder first"),
        changing_users(tmp_path / "none" / "users.yaml"),
    ):
        pass


BROKEN = {
    "": "valid dictionary",
    "[]": "valid dictionary",
    "{}": "users: Field required",
    "users: [alice]": "users: Input should be a valid dictionary",
    "users: {alice: {password: secret}}": "users.alice.password: .*argon2 hash is right",
    "users: {alice: {password: 17}}": "users.alice.password",
    "users: {alice: {disabled: 'no'}}": "users.alice.disabled",
    "users: {alice: {shell: bash}}": "users.alice.shell: Extra",
    "users: {alice: null}": "users.alice",
    "users: {alice: {disabled: true}, alice: {}}": ":1: found the same name twice",
    "users: {alice: {disabled: true, disabled: false}}": ":1: found the same name twice",
    "users: {'*': {}}": "no user name",
    "users: {17: {}}": "users.17",
    "users: {alice: {groups: ['a,b']}}": "without commas",
    "users: {alice: &a {groups: *a}}": "users.yaml",
    "users:\n\t- x": ":2: ",
    "users: {alice: {}\n": ":2: ",
    "users: !!python/object/apply:os.system [true]": "constructor",
    "users: !!map [1]": "users.yaml",
    "? [1]\n: 2": "users.yaml",
    "users: " + "[" * 1500: "RecursionError",
    "\0": "users.yaml",
    "users: {alice: {}}\n---\n": "users.yaml",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: ascii(text[:60]))
def test_a_broken_file_lets_nobody_in(path: Path, text: str) -> None:
    file = UsersFile(path)
    file.users()
    path.write_text(text)
    with pytest.raises(UsersFileError, match=BROKEN[text]) as caught:
        file.users()
    assert str(caught.value).isprintable()
    with pytest.raises(UsersFileError), changing_users(path) as users:
        users["bob"] = User()
    assert path.read_text() == text  # not written over


def test_what_is_wrong_is_told_without_the_secrets(path: Path) -> None:
    path.write_text(path.read_text().replace("password:", "pasword:"))
    with pytest.raises(UsersFileError) as caught:
        UsersFile(path).users()
    assert HASH not in str(caught.value)
    path.write_text(f"users: {{alice: {{password: {HASH}")
    with pytest.raises(UsersFileError) as caught:
        UsersFile(path).users()
    assert HASH not in str(caught.value)


@given(st.binary() | st.text(alphabet="{}[]:,&*!?|>'\"%@`#- \nusers~<=\t0").map(str.encode))
def test_any_bytes_are_users_or_a_sentence(contents: bytes) -> None:
    try:
        _parsed(Path("users.yaml"), contents)
    except UsersFileError as error:
        sentence = str(error)
        assert sentence.isprintable(), sentence
    else:
        assert b"users" in contents


def test_owner_and_mode_stay(path: Path) -> None:
    os.chown(path, 0, 54321)
    path.chmod(0o640)
    with changing_users(path) as users:
        users["bob"] = User()
    assert (path.stat().st_gid, path.stat().st_mode & 0o7777) == (54321, 0o640)


def test_a_new_file_belongs_to_its_folders_owner(tmp_path: Path) -> None:
    """Else `sudo bastion users add` makes a file that the bastion itself can not read."""
    os.chown(tmp_path, 12345, 54321)
    with changing_users(tmp_path / "users.yaml") as users:
        users["bob"] = User()
    status = (tmp_path / "users.yaml").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12345, 54321, 0o600)


def test_a_symlink_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    with changing_users(link) as users:
        users["bob"] = User()
    assert link.is_symlink()
    assert set(UsersFile(path).users()) == {"alice", "bob"}


def test_nothing_is_written_where_something_went_wrong(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyError), changing_users(path) as users:
        users["bob"] = users["nobody"]
    monkeypatch.setattr(users_file.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UsersFileError, match="No space left"), changing_users(path) as users:
        users["bob"] = User()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_many_writers_at_once_lose_nobody(path: Path) -> None:
    """Processes of their own, while a reader reads on and never finds half a file."""
    script = (
        "import sys; from pathlib import Path; from bastion.auth.users_file import User, changing_users\n"
        "for number in range(10):\n"
        "    with changing_users(Path(sys.argv[1])) as users: users[f'user{sys.argv[2]}-{number}'] = User()\n"
    )
    stop, file, seen = threading.Event(), UsersFile(path), 0

    def read() -> None:
        nonlocal seen
        while not stop.is_set():
            assert len(file.users()) >= seen
            seen = len(file.users())

    reader = threading.Thread(target=read)
    reader.start()
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), str(number)]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    stop.set()
    reader.join(10)
    assert len(file.users()) == 41
    assert seen > 1


def test_a_lock_that_is_held_is_not_waited_for_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_file, "LOCK_SECONDS", 0.1)
    with (
        changing_users(path),
        pytest.raises(UsersFileError, match="somebody else has been changing it"),
        changing_users(path),
    ):
        pass
