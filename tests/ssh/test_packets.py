"""The short way beside asyncssh's own: the same bytes, whatever the window, the keys and the cipher. Stock clients are
in tests/e2e."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest

from bastion.ssh import packets, tuning
from bastion.ssh.channel import ServerChannel
from bastion.ssh.packets import ShortWay

GCM, CHACHA = "aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"


class Echo(asyncssh.SSHServerSession[bytes]):
    """What comes goes back, to stdout and, of what begins with `!`, to stderr."""

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self.channel = chan

    def shell_requested(self) -> bool:
        return True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.channel.write(data, asyncssh.EXTENDED_DATA_STDERR if data[:1] == b"!" else None)

    def eof_received(self) -> bool:
        self.channel.exit(0)
        return True


class Counted(ShortWay):
    sent = received = 0

    def send(self, channel: ServerChannel, data: bytearray, datatype: int | None) -> int:
        sent = super().send(channel, data, datatype)
        self.sent += sent
        return sent

    def _deliver(self, key: Any, packet: bytes) -> bool:
        delivered = super()._deliver(key, packet)
        self.received += len(packet) * delivered
        return delivered


class Server(asyncssh.SSHServer):
    short_way: Counted

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn
        self.short_way = Counted(conn)
        tuning.send_no_ignore(conn)
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> tuple[ServerChannel, Echo]:
        tuning.handshake_is_over(self.conn, self.short_way)
        loop = asyncio.get_running_loop()
        made = ServerChannel(self.conn, loop, True, False, False, 0, 0, None, "strict", 1 << 20, 32768)
        made.short_way = self.short_way
        return made, Echo()


@contextlib.asynccontextmanager
async def connected(
    cipher: str = GCM, *, rekey_bytes: int = 1 << 30
) -> AsyncIterator[tuple[asyncssh.SSHClientConnection, Server]]:
    """Both sides exchange keys anew after `rekey_bytes`."""
    servers: list[Server] = []

    def made() -> Server:
        servers.append(Server())
        return servers[0]

    key = asyncssh.generate_private_key("ssh-ed25519")
    options: dict[str, Any] = {"encryption_algs": [cipher], "rekey_bytes": rekey_bytes}
    async with await asyncssh.create_server(made, "127.0.0.1", 0, server_host_keys=[key], **options) as listening:
        port = listening.sockets[0].getsockname()[1]
        connecting = asyncssh.connect(
            "127.0.0.1", port, known_hosts=None, username="x", config=None, agent_path=None, client_keys=None, **options
        )
        async with connecting as client:
            tuning.send_no_ignore(client)  # type: ignore[arg-type]  # like OpenSSH's
            yield client, servers[0]


async def through(client: asyncssh.SSHClientConnection, data: bytes, window: int, piece: int) -> bytes:
    """What comes back of `data` sent in pieces, read into a window of so many bytes."""
    process = await client.create_process(encoding=None, window=window, max_pktsize=4096)

    async def send() -> None:
        for begin in range(0, len(data), piece):
            process.stdin.write(data[begin : begin + piece])
            await process.stdin.drain()
        process.stdin.write_eof()

    _, out, error = await asyncio.gather(send(), process.stdout.read(), process.stderr.read())
    assert not error
    return bytes(out)


def test_it_is_in_use() -> None:
    """Another asyncssh: read its connection.py, channel.py and crypto/cipher.py again, then add it to KNOWN."""
    assert packets.KNOWN


@pytest.mark.parametrize(("window", "piece"), [(1 << 21, 100_000), (5000, 3000), (1 << 21, 1)])
async def test_bytes_both_ways(window: int, piece: int) -> None:
    data = os.urandom(2000 if piece == 1 else 3_000_000).replace(b"!", b"?")
    async with connected() as (client, server):
        assert await asyncio.wait_for(through(client, data, window, piece), 60) == data
        assert server.short_way.sent > len(data) * 0.9
        assert server.short_way.received > len(data)


async def test_stderr() -> None:
    async with connected() as (client, _):
        process = await client.create_process(encoding=None)
        process.stdin.write(b"!" * 100_000)
        process.stdin.write_eof()
        out, error = await asyncio.wait_for(process.communicate(), 30)
        assert (out, error) == (b"", b"!" * 100_000)


async def test_keys_are_exchanged_anew_in_the_middle() -> None:
    data = os.urandom(3_000_000).replace(b"!", b"?")
    async with connected(rekey_bytes=300_000) as (client, server):
        keys = set()
        echo = asyncio.create_task(through(client, data, 1 << 20, 50_000))
        async with asyncio.timeout(60):
            while not echo.done():
                keys.add(server.conn._send_encryption._cipher._key)
                await asyncio.sleep(0)
        assert hashlib.sha256(await echo).digest() == hashlib.sha256(data).digest()
        assert len(keys) >= 5
        assert server.short_way.sent > len(data) * 0.9


async def test_another_cipher_goes_asyncsshs_own_way() -> None:
    data = os.urandom(300_000).replace(b"!", b"?")
    async with connected(CHACHA) as (client, server):
        assert await asyncio.wait_for(through(client, data, 1 << 20, 50_000), 60) == data
        assert (server.short_way.sent, server.short_way.received) == (0, 0)


async def test_a_packet_that_was_changed_on_its_way_ends_the_connection() -> None:
    async with connected() as (client, server):
        process = await client.create_process(encoding=None)
        process.stdin.write(b"a")
        assert await process.stdout.read(1) == b"a"
        send = client._send

        def changed(data: bytes) -> None:
            send(data[:-1] + bytes((data[-1] ^ 1,)))

        client._send = changed  # type: ignore[method-assign]
        process.stdin.write(b"b")
        lost = await asyncio.wait_for(server.lost, 30)
        assert isinstance(lost, asyncssh.MACError)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x5e" + b"\0\0\0\x63" + b"\0\0\0\x01x",  # data for a channel that there is not
        b"\x5e" + b"\0\0\0\0" + b"\0\0\0\x09x",  # shorter than it says
        b"\x5e" + b"\0\0\0\0" + b"\0\0\0\x01xy",  # longer than it says
        b"\x5e" + b"\0\0\0\0" + b"\x7f\xff\xff\xff",
        b"\x5d" + b"\0\0\0\0",  # window-adjust without a number
        b"\x5e",
    ],
)
async def test_nonsense_ends_the_connection(payload: bytes) -> None:
    async with connected() as (client, server):
        process = await client.create_process(encoding=None)
        process.stdin.write(b"a")
        assert await process.stdout.read(1) == b"a"
        client.send_packet(payload[0], payload[1:])
        assert isinstance(await asyncio.wait_for(server.lost, 30), asyncssh.ProtocolError)
