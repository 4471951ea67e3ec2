"""Bad input from clients: each gets a clear error, the operator a reason, and the next right login works."""

import asyncio
import contextlib
import os
import random
import re
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import asyncssh
import paramiko
import pytest
from asyncssh.packet import Boolean, String, UInt32

from tests.servers.bastion import PASSWORD, Bastion
from tests.servers.engine import Engine
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"
# What a terminal would obey: C0 but for newline, DEL, and C1 in UTF-8.
RAW = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


@pytest.fixture(autouse=True)
def _unharmed(bastion: Bastion) -> Iterator[None]:
    """After each test the bastion serves, and its logs are clean."""
    yield
    assert bastion.process.poll() is None
    assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"
    for name in ("bastion.log", "audit.jsonl"):
        log = (bastion.folder / name).read_bytes()
        assert RAW.search(log) is None, name
        assert b"Traceback" not in log, name
    bastion.events()  # each line is JSON


@contextlib.contextmanager
def transport(bastion: Bastion) -> Iterator[paramiko.Transport]:
    """Keys are exchanged; paramiko sends user names that ssh refuses to."""
    with contextlib.closing(paramiko.Transport(("127.0.0.1", bastion.port))) as made:
        made.start_client(timeout=20)
        yield made


def connected(bastion: Bastion, login: str = BUSY) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    key = f"{bastion.folder}/alice_key"
    return asyncssh.connect("127.0.0.1", bastion.port, username=login, client_keys=[key], known_hosts=None)


@pytest.fixture
async def connection(bastion: Bastion) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with connected(bastion) as made:
        yield made


# User names.

NO_USERS = {
    "10 kB": "a" * 10_000,
    "1000 characters": "a" * 1000,
    "NUL": "ali\0ce",
    "newline": "alice\nroot",
    "carriage return": "alice\r\nuser.login",
    "escape sequence": "\x1b[2J\x1b]0;owned\x07alice",
    "C1": "\x9b31malice",
    "right to left": "\u202eecila",
    "lone plus": "+",
    "only pluses": "+++++",
    "no user": "+web.busy.1",
    "many pluses": "alice+++++web.busy.1",
    "path": "../../etc/passwd",
    "path and address": "../alice+web.busy.1",
    "filter": "*)(uid=*))(|(uid=*",
    "shell": "$(reboot)`id`;|&",
    "format": "%s%n{0.__class__}",
    "space": "alice ",
    "empty": "",
    "not UTF-8": b"al\xff\xfeice",
}


@pytest.mark.parametrize("user", NO_USERS.values(), ids=NO_USERS)
def test_a_user_name_that_is_none(bastion: Bastion, user: str | bytes) -> None:
    with transport(bastion) as client:
        source_port = client.sock.getsockname()[1]
        with pytest.raises(paramiko.SSHException) as refused:
            client.auth_password(user, PASSWORD)  # type: ignore[arg-type]
    assert RAW.search(str(refused.value).encode()) is None
    event = bastion.wait_for_event("connection.close", source_port=source_port)
    failed = bastion.events("user.login_failed", source_port=source_port)
    assert [one["reason"] for one in failed] in ([], ["malformed_user_name"], ["unknown_user"])
    assert failed or (event["reason"], bool(event["detail"])) == ("IllegalUserName", True)


NO_ADDRESSES = {
    "instance -1": "web.busy.-1",
    "instance 007": "web.busy.007",
    "instance 10^12": "web.busy.1000000000000",
    "path": "../../etc/passwd",
    "path in a cluster": "../web.busy.1",
    "NUL-like": "web.busy.1%00",
    "dots": "...",
    "a dot at the end": "web.busy.",
    "a slash": "/",
    "pattern": "*",
    "option": "-oProxyCommand=id",
    "filter": "web)(cn=*",
    "not ASCII": "wéb.busy.1",
    "digits that are none": "web.busy.١",  # noqa: RUF001
    "500 characters": "a" * 500,
    "escape-like": "web\\x1b[31m",
}


@pytest.mark.parametrize("address", NO_ADDRESSES.values(), ids=NO_ADDRESSES)
def test_an_address_that_is_none(bastion: Bastion, address: str) -> None:
    with transport(bastion) as client:
        client.auth_password(f"alice+{address}", PASSWORD)
        channel = client.open_session(timeout=20)
        channel.exec_command("echo ran")
        assert channel.makefile().read() == b""
        sentence = channel.makefile_stderr().read()
        assert channel.recv_exit_status() == 1
    assert b"What is right" in sentence
    assert sentence.count(b"\n") == 1
    assert RAW.search(sentence.replace(b"\r\n", b"")) is None
    event = bastion.wait_for_event("access.denied", user="alice", address=address)
    assert event["reason"] in {"malformed_address", "malformed_user_name"}


def test_an_instance_0_is_an_address_that_nobody_has(bastion: Bastion) -> None:
    assert b"There is no container web.busy.0" in bastion.ssh("alice+web.busy.0", "true").stderr


# Commands and what comes before them.


@pytest.mark.parametrize("command", [b"echo \xff\xfe", b"\x80", b"echo \xed\xa0\x80", b"\xc3"])
def test_a_command_that_is_not_utf8(bastion: Bastion, command: bytes) -> None:
    words: list[bytes | str] = [*bastion.ssh_command(BUSY), command]
    done = subprocess.run(words, capture_output=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"The command is not UTF-8; pipe it as a script instead" in done.stderr
    bastion.wait_for_event("access.denied", reason="malformed_request", user="alice")
    # and the way that it recommends
    assert bastion.ssh(BUSY, "sh -s", stdin=b"printf '\xff'").stdout == b"\xff"


async def test_a_command_with_a_nul_and_one_that_is_too_long(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run("echo \0 id", check=False)
    assert (done.stdout, done.stderr, done.exit_status) == ("", "The command has a NUL byte in it.\r\n", 1)
    longest = 128 * 1024 - 1
    done = await connection.run(":" + " " * longest, check=False)
    assert (done.stdout, done.exit_status) == ("", 1)
    assert f"longer than {longest} bytes" in str(done.stderr)
    done = await connection.run("echo in" + " " * (longest - 7))
    assert done.stdout == "in\n"


async def test_a_command_of_10_megabytes(bastion: Bastion, connection: asyncssh.SSHClientConnection) -> None:
    """Longer than a packet may be: there is no way to refuse it but to close (RFC 4253 section 6.1)."""
    with pytest.raises((asyncssh.DisconnectError, asyncssh.ChannelOpenError, OSError)):
        await connection.run("x" * 10_000_000)
    event = await asyncio.to_thread(bastion.wait_for_event, "connection.close", detail="Max packet size exceeded")
    assert event["user"] == "alice"


def test_a_megabyte_of_environment(bastion: Bastion) -> None:
    env = {**os.environ, **{f"LC_{i}": "x" * 50_000 for i in range(20)}, "LC_SMALL": "kept"}
    words = bastion.ssh_command(BUSY, "env | wc -c; echo $LC_SMALL", options=("-o", "SendEnv=LC_SMALL LC_*"))
    done = subprocess.run(words, env=env, capture_output=True, timeout=30, check=False)
    size, small = done.stdout.split()
    assert int(size) < 40_000
    assert small == b"kept"
    env = {**os.environ, **{f"LC_{i}": "x" for i in range(1000)}}
    words = bastion.ssh_command(BUSY, "env | grep -c ^LC_", options=("-o", "SendEnv=LC_*"))
    done = subprocess.run(words, env=env, capture_output=True, timeout=30, check=False)
    assert int(done.stdout) <= 64


@pytest.mark.parametrize("size", [0, 1, 65536, 2**31, 2**32 - 1])
async def test_a_terminal_of_any_size(bastion: Bastion, size: int) -> None:
    async with connected(bastion, "alice+web.worker.1") as client:
        process = await client.create_process("read x; stty size", term_type="xterm", term_size=(size, size))
        process.change_terminal_size(size, size)
        process.stdin.write("\n")
        done = await asyncio.wait_for(process.wait(), 20)
    rows, columns = map(int, str(done.stdout).split())
    right = {0: (24, 80), 1: (1, 1)}
    assert (rows, columns) == right.get(size, (65535, 65535))


@pytest.mark.parametrize("term", ["\x1b[31m", "x" * 10_000, "../../etc/passwd", "", "a b", "xterm\nLD_PRELOAD=x"])
async def test_a_terminal_of_any_kind(connection: asyncssh.SSHClientConnection, term: str) -> None:
    done = await connection.run("echo $TERM", term_type=term or "?", term_size=(80, 24))
    assert done.stdout == "dumb\r\n"


# Requests that there are none of.


async def test_unknown_channel_requests(connection: asyncssh.SSHClientConnection) -> None:
    process = await connection.create_process("cat")
    for name in (b"nosuch@example.org", b"break", b"", b"\x1b[31m", b"shell", b"exec", b"pty-req", b"x" * 10_000):
        with contextlib.suppress(asyncssh.ProtocolError):
            arguments = {b"break": [UInt32(1)], b"exec": [String(b"id")]}.get(name, [])
            if name == b"pty-req":
                arguments = [String(b"xterm"), *(4 * [UInt32(1)]), String(b"")]
            await asyncio.wait_for(process.channel._make_request(name, *arguments), 20)
    process.stdin.write("still here\n")
    process.stdin.write_eof()
    assert (await process.wait()).stdout == "still here\n"


def test_unknown_channels_and_global_requests(bastion: Bastion) -> None:
    with transport(bastion) as client:
        client.auth_password(BUSY, PASSWORD)
        for kind in ("nosuch", "\x1b[31m", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "x" * 10_000, ""):
            with pytest.raises(paramiko.ChannelException):
                client.open_channel(kind, ("127.0.0.1", 1), ("127.0.0.1", 2), timeout=20)
        for kind in ("nosuch@example.org", "\x1b[31m", "hostkeys-prove-00@openssh.com", "x" * 10_000, ""):
            assert client.global_request(kind, wait=True) is None
        channel = client.open_session(timeout=20)
        channel.exec_command("echo usable")
        assert channel.makefile().read() == b"usable\n"


# Bytes at the port.


def packet(payload: bytes, padding: int = 8) -> bytes:
    """RFC 4253 section 6, before there are keys."""
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


VERSION = b"SSH-2.0-Test\r\n"
BYTES = {
    "nothing": b"",
    "half an identification": b"SSH-2.0-hal",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSH 1": b"SSH-1.5-Old\r\n",
    "no ASCII": b"SSH-2.0-\xff\xfe\x1b[31m\r\n",
    "escape sequences": b"\x1b[2J\x1b]0;owned\x07\r\n",
    "an endless line": b"A" * 100_000,
    "an endless identification": b"SSH-2.0-" + b"A" * 100_000 + b"\r\n",
    "an empty packet": VERSION + bytes(64),
    "a packet of 4 GB": VERSION + b"\xff" * 64,
    "a packet of only padding": VERSION + packet(b"", 255),
    "more padding than packet": VERSION + struct.pack(">IB", 12, 255) + bytes(32),
    "KEXINIT cut short": VERSION + packet(b"\x14" + bytes(7)),
    "KEXINIT of garbage": VERSION + packet(b"\x14" + bytes(range(250))),
    "KEXINIT of nothing in common": VERSION + packet(b"\x14" + bytes(16) + 10 * String(b"x\x1b[31m") + bytes(5)),
    "a login before keys": VERSION + packet(b"\x32" + String(b"alice") + String(b"ssh-connection") + String(b"none")),
    "a channel before login": VERSION + packet(b"\x5a" + String(b"session") + bytes(12)),
    "an unknown message": VERSION + packet(b"\xff" * 20),
    "goodbye": VERSION + packet(b"\x01" + UInt32(11) + String(b"\x1b[31mbye\r\nFAKE") + String(b"")),
}


def say(bastion: Bastion, data: bytes) -> int:
    """Send `data`, end, and read until the bastion has closed; the source port."""
    with socket.create_connection(("127.0.0.1", bastion.port), timeout=20) as client:
        source_port: int = client.getsockname()[1]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    return source_port


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_ssh(bastion: Bastion, data: bytes) -> None:
    event = bastion.wait_for_event("connection.close", source_port=say(bastion, data))
    assert (event["source_ip"], bool(event["reason"])) == ("127.0.0.1", True)


def fuzzed(seed: random.Random) -> bytes:
    """Random bytes, or something like SSH with an error in it."""
    choice = seed.randrange(4)
    if choice == 0:
        return seed.randbytes(seed.randrange(300))
    if choice == 1:
        return VERSION + seed.randbytes(seed.randrange(2000))
    if choice == 2:
        return VERSION + b"".join(
            packet(bytes([seed.randrange(256)]) + seed.randbytes(seed.randrange(200)), seed.randrange(4, 256))
            for _ in range(seed.randrange(1, 6))
        )
    whole = bytearray(VERSION + packet(b"\x14" + bytes(16) + 10 * String(b"curve25519-sha256,ssh-ed25519") + bytes(5)))
    for _ in range(seed.randrange(1, 8)):
        whole[seed.randrange(len(whole))] = seed.randrange(256)
    return bytes(whole)


def test_random_bytes_at_the_port(bastion: Bastion) -> None:
    seed = random.Random(2)
    say(bastion, VERSION)
    before = bastion.rss()
    for _ in range(300):
        say(bastion, fuzzed(seed))
    assert bastion.rss() - before < 8 << 20


async def test_random_messages_of_a_user_who_is_signed_in(bastion: Bastion, engine: Engine) -> None:
    seed = random.Random(3)
    words = [
        b"session",
        b"direct-tcpip",
        b"exec",
        b"shell",
        b"pty-req",
        b"env",
        b"channel",
        b"auth-agent-req@openssh.com",
    ]

    def field() -> bytes:
        makers: list[Callable[[], bytes]] = [
            lambda: String(seed.choice(words)),
            lambda: UInt32(seed.choice([0, 1, 2, 2**31, 2**32 - 1])),
            lambda: Boolean(seed.random() < 0.5),
            lambda: seed.randbytes(seed.randrange(30)),
        ]
        return seed.choice(makers)()

    for _ in range(40):
        async with connected(bastion) as client:
            with contextlib.suppress(OSError, asyncssh.Error):
                await client.create_process("cat")
                for _ in range(20):
                    kind = seed.choice([2, 5, 20, 21, 30, 50, 60, 80, 81, 90, 91, 93, 94, 95, 96, 97, 98, 98, 98, 99])
                    client.send_packet(kind, *(field() for _ in range(seed.randrange(6))))
                    await asyncio.sleep(0)
            client.abort()
    (container,) = engine.client.containers.list(filters={"label": ["bastion.app=web", "bastion.proc=busy"]})
    await asyncio.to_thread(wait_until, lambda: "cat" not in engine.processes(container), "nothing is left running")
