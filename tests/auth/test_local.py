import asyncio
import base64
import logging
import threading
from pathlib import Path

import pytest
from argon2.exceptions import VerificationError, VerifyMismatchError

from bastion.auth import local
from bastion.auth.certificate import fingerprint
from bastion.auth.local import Local
from bastion.auth.users_file import HASHER, User, changing_users
from bastion.config import LocalUsers
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity
from tests.auth.test_publickey import blob

KEY = blob()
OTHER = blob(rest=b"\0\0\0\x20" + bytes(32))
LINE = f"ssh-ed25519 {base64.b64encode(KEY).decode()} alice@laptop"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    with changing_users(path) as users:
        users["alice"] = User(password=HASHER.hash("correct horse"), groups=["developers"], authorized_keys=[LINE])
        users["gone"] = User(password=HASHER.hash("correct horse"), authorized_keys=[LINE], disabled=True)
        users["keys"] = User(authorized_keys=["ssh-ed25519 broken\x1b[2J", f'from="10.0.0.0/8" {LINE}'])
        users["wide"] = User(authorized_keys=[f'from="10.0.0.0/8" {LINE}', LINE])
        users["forced"] = User(authorized_keys=[f'command="/bin/true" {LINE}'])
    return path


async def refused(method: Local, user: str, how: bytes | str, source_ip: str = "192.0.2.1") -> tuple[Reason, str]:
    asking = (
        method.public_key(user, "ssh-ed25519", how, source_ip)
        if isinstance(how, bytes)
        else method.password(user, how.encode(), source_ip)
    )
    with pytest.raises(Refusal) as caught:
        await asking
    assert caught.value.log_text.isprintable()
    return caught.value.reason, caught.value.log_text


async def test_passwords(users: Path) -> None:
    method = Local(LocalUsers(file=users))
    assert await method.password("alice", b"correct horse", "") == Identity(
        "alice", "local-password", frozenset({"developers"})
    )
    assert await method.password("nobody", b"correct horse", "") is None
    assert (await refused(method, "alice", "wrong"))[0] == Reason.WRONG_CREDENTIALS
    assert (await refused(method, "gone", "wrong"))[0] == Reason.WRONG_CREDENTIALS
    assert (await refused(method, "gone", "correct horse"))[0] == Reason.USER_DISABLED
    assert (await refused(method, "keys", "correct horse"))[0] == Reason.WRONG_CREDENTIALS
    await method.close()


async def test_keys(users: Path) -> None:
    method = Local(LocalUsers(file=users))
    found = await method.public_key("alice", "ssh-ed25519", KEY, "192.0.2.1")
    credential = {"key": fingerprint(KEY)}
    assert found == Identity("alice", "local-publickey", frozenset({"developers"}), credential=credential, key=KEY)
    assert await method.public_key("nobody", "ssh-ed25519", KEY, "192.0.2.1") is None
    assert (await method.public_key("keys", "ssh-ed25519", KEY, "10.1.2.3")) is not None
    assert (await method.public_key("wide", "ssh-ed25519", KEY, "192.0.2.1")) is not None
    reason, text = await refused(method, "alice", OTHER)
    assert (reason, "is not theirs" in text) == (Reason.KEY_NOT_ALLOWED, True)
    reason, text = await refused(method, "keys", KEY)
    assert (reason, "does not allow '192.0.2.1'" in text) == (Reason.KEY_NOT_ALLOWED, True)
    reason, text = await refused(method, "keys", OTHER)
    assert "authorized_keys 1: a control character" in text
    reason, text = await refused(method, "forced", KEY)
    assert (reason, "command" in text) == (Reason.KEY_NOT_ALLOWED, True)
    assert (await refused(method, "gone", KEY))[0] == Reason.USER_DISABLED
    assert (await refused(method, "gone", OTHER))[0] == Reason.KEY_NOT_ALLOWED
    await method.close()


async def test_a_changed_file_counts_at_once_and_a_broken_one_is_unavailable(users: Path) -> None:
    method = Local(LocalUsers(file=users))
    await method.password("alice", b"correct horse", "")
    with changing_users(users) as known:
        known["alice"] = known["alice"].model_copy(update={"disabled": True})
    assert (await refused(method, "alice", "correct horse"))[0] == Reason.USER_DISABLED
    whole = users.read_text()
    for spoil in (lambda: users.write_text("users:"), lambda: users.chmod(0o644), users.unlink):
        spoil()
        for how in ("correct horse", KEY):
            reason, text = await refused(method, "nobody", how)
            assert reason == Reason.AUTH_UNAVAILABLE
            assert str(users) in text
        if users.exists():
            users.chmod(0o600)
    users.touch(mode=0o600)
    users.write_text(whole)
    assert await method.password("nobody", b"correct horse", "") is None
    await method.close()


async def test_a_flood_of_passwords_is_bounded_and_keys_go_on(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    class Slow:
        @staticmethod
        def verify(password_hash: str, password: bytes) -> bool:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            go.wait(15)
            with lock:
                at_once -= 1
            raise VerifyMismatchError

        hash = HASHER.hash

    monkeypatch.setattr(local, "HASHER", Slow)
    method = Local(LocalUsers(file=users))
    room = 128 + local.HASHING_THREADS
    flood = [asyncio.create_task(refused(method, "alice", "wrong")) for _ in range(200)]
    while sum(task.done() for task in flood) < 200 - room:
        assert await method.public_key("alice", "ssh-ed25519", KEY, "192.0.2.1")
    go.set()
    reasons = [(await task)[0] for task in flood]
    assert reasons.count(Reason.AUTH_UNAVAILABLE) == 200 - room
    assert reasons.count(Reason.WRONG_CREDENTIALS) == room
    assert most == local.HASHING_THREADS
    await method.close()


async def test_too_little_memory_is_not_a_wrong_password(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def verify(password_hash: str, password: bytes) -> bool:
            raise VerificationError("Memory allocation error")

        hash = HASHER.hash

    monkeypatch.setattr(local, "HASHER", Broken)
    method = Local(LocalUsers(file=users))
    with pytest.raises(Unavailable, match="Memory allocation"):
        await method.password("alice", b"correct horse", "")
    await method.close()


async def test_the_password_is_not_in_what_is_logged(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    method = Local(LocalUsers(file=users))
    _, text = await refused(method, "alice", "hunter2 hunter2")
    await method.close()
    assert "hunter2" not in text + caplog.text
