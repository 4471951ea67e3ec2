"""Against sockets of the test's own, which see each frame; tests/e2e/test_syslog.py has a real server."""

import asyncio
import contextlib
import datetime
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit import syslog as syslog_module
from bastion.audit.events import Entry, Event, entry
from bastion.audit.log import AuditLog
from bastion.audit.syslog import Syslog
from bastion.config import Audit
from bastion.config import Syslog as SyslogConfig
from tests.audit.waiting import eventually
from tests.servers.process import free_port

RFC5424 = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) bastion (\d{1,128})"
    rb" ([!-~]{1,32}) - (\{.*\})"
)


def made(number: int, event: Event = Event.CONFIG_RELOADED, **fields: Any) -> Entry:
    return entry(event, "b1", dict.fromkeys(event.required, "x") | {"number": number} | fields)


def numbers(messages: list[bytes]) -> list[int]:
    found = [RFC5424.fullmatch(message) for message in messages]
    assert all(found), messages
    return [json.loads(match[6])["number"] for match in found if match]


class Server:
    """What came, by octet counting; `hold` keeps it from reading."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.reads.wait()
                length = (await reader.readuntil(b" "))[:-1]
                assert re.fullmatch(rb"[1-9][0-9]*", length)
                self.messages.append(await reader.readexactly(int(length)))
        writer.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "syslog")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(pem + private)
    return tmp_path


@contextlib.asynccontextmanager
async def serving(server: Server, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        listening.close()
        for writer in server.writers:
            writer.transport.abort()
        server.writers.clear()


@contextlib.asynccontextmanager
async def sink(url: str, **options: Any) -> AsyncIterator[Syslog]:
    made = Syslog(SyslogConfig(url=url, **options))
    await made.open()
    yield made
    await made.close()


def test_a_message_is_of_rfc_5424() -> None:
    one = Syslog(SyslogConfig(url="udp://127.0.0.1:514", facility="local3"))
    for event in Event:
        match = RFC5424.fullmatch(one.message(made(1, event, user="eve\x1b[2J\n\u202e")))
        assert match is not None, event
        assert match[5] == event.encode()
        assert int(match[1]) // 8 == 19
    assert RFC5424.fullmatch(one.message(made(1)))[1] == b"158"  # type: ignore[index] # local3.info
    assert RFC5424.fullmatch(one.message(made(1, Event.ACCESS_DENIED)))[1] == b"156"  # type: ignore[index] # .warning
    assert RFC5424.fullmatch(one.message(made(1, Event.AUDIT_FAILED)))[1] == b"155"  # type: ignore[index] # .err


async def test_tcp_counts_octets() -> None:
    server, port = Server(), free_port()
    async with serving(server, port), sink(f"tcp://127.0.0.1:{port}") as syslog:
        assert await syslog.write([made(n, padding="\u00fc" * 1000) for n in range(100)]) == 100
        await eventually(lambda: came(server, 100), "all came")
        assert numbers(server.messages) == list(range(100))
        assert server.connections == 1


async def came(server: Server, count: int) -> bool:
    return len(server.messages) >= count


async def test_tls_verifies_the_server(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "server.pem")
    server, port = Server(), free_port()
    async with serving(server, port, context):
        async with sink(f"tls://127.0.0.1:{port}", ca_file=certificate / "ca.pem") as syslog:
            await syslog.write([made(1), made(2)])
            await eventually(lambda: came(server, 2), "both came")
            assert numbers(server.messages) == [1, 2]
        async with sink(f"tls://127.0.0.1:{port}") as syslog:  # the system's authorities do not know it
            with pytest.raises(ssl.SSLCertVerificationError):
                await syslog.write([made(3)])
        async with sink(f"tls://localhost:{port}", ca_file=certificate / "ca.pem") as syslog:  # another name
            with pytest.raises(ssl.SSLCertVerificationError):
                await syslog.write([made(3)])
    assert len(server.messages) == 2


async def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        async with sink(f"udp://127.0.0.1:{receiver.getsockname()[1]}") as syslog:
            await syslog.write([made(1), made(2), made(3, padding=["\u00fc" * 256] * 40)])
            long = made(4, **{f"padding{n}": "\U0001f600" * 4096 for n in range(3)})
            assert len(long.line) > syslog_module.DATAGRAM
            await syslog.write([long])
        assert numbers([receiver.recv(1 << 16) for _ in range(3)]) == [1, 2, 3]
        assert len(receiver.recv(1 << 16)) == syslog_module.DATAGRAM


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_unix_socket(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = f"{tmp_path}/log"
    with socket.socket(socket.AF_UNIX, kind) as receiver:
        receiver.bind(path)
        if kind is socket.SOCK_STREAM:
            receiver.listen()
            async with sink(f"unix://{path}") as syslog:
                writing = asyncio.create_task(syslog.write([made(1), made(2)]))
                connection, _ = await asyncio.to_thread(receiver.accept)
                with connection, connection.makefile("rb") as lines:
                    first = await asyncio.to_thread(lines.readline)
                    second = await asyncio.to_thread(lines.readline)
                    assert await writing == 2
            assert numbers([first[:-1], second[:-1]]) == [1, 2]
        else:
            async with sink(f"unix://{path}") as syslog:
                writing = asyncio.create_task(syslog.write([made(n) for n in range(500)]))  # more than it holds
                found = await asyncio.to_thread(lambda: [receiver.recv(1 << 16) for _ in range(500)])
                assert await writing == 500
            assert numbers(found) == list(range(500))


async def test_what_is_not_there_is_an_error_that_says_where(tmp_path: Path) -> None:
    for url in (f"tcp://127.0.0.1:{free_port()}", f"unix://{tmp_path}/none"):
        async with sink(url) as syslog:
            assert syslog.name == f"audit.syslog {url}"
            with pytest.raises(OSError, match=r"Connect call failed|No such file"):
                await syslog.write([made(1)])


async def test_a_server_that_does_not_read_has_not_got_it_and_one_that_comes_back_gets_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written into a connection that breaks, it would be lost without a word."""
    server, port = Server(), free_port()
    async with sink(f"tcp://127.0.0.1:{port}") as syslog:
        async with serving(server, port):
            await syslog.write([made(0)])
            await eventually(lambda: came(server, 1), "it came")
            server.reads.clear()
            big = [made(n, padding="x" * 4000) for n in range(1, 2001)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await syslog.write(big)
        server.reads.set()
        with pytest.raises(OSError, match="Connect call failed"):
            await syslog.write([made(1)])
        async with serving(server, port):
            await syslog.write(big)

            async def all_came() -> bool:
                return set(numbers(server.messages)) == set(range(2001))

            await eventually(all_came, "all came, some of them twice")


async def test_a_connection_that_the_server_closed_is_made_anew() -> None:
    server, port = Server(), free_port()
    async with sink(f"tcp://127.0.0.1:{port}") as syslog, serving(server, port):
        await syslog.write([made(1)])
        await eventually(lambda: came(server, 1), "it came")
        server.writers.pop().transport.abort()
        connection = syslog._connection
        assert connection is not None

        async def noticed() -> bool:
            return connection.closed

        await eventually(noticed, "it is noticed")
        await syslog.write([made(2)])
        await eventually(lambda: came(server, 2), "it came")
        assert numbers(server.messages) == [1, 2]


@pytest.mark.alone
async def test_a_server_that_hangs_holds_up_nobody_and_what_it_missed_is_counted(
    tmp_path: Path, database: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bastion.audit import log as log_module

    monkeypatch.setattr(log_module, "CAPACITY", 200_000)
    monkeypatch.setattr(log_module, "WRITE_LIMIT", 1.0)
    server, port, file = Server(), free_port(), tmp_path / "audit.jsonl"
    server.reads.clear()
    config = Audit(file=file, syslog=SyslogConfig(url=f"tcp://127.0.0.1:{port}"))

    def logged(event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return [line for line in lines if line["event"] == event and "syslog" in line.get("sink", "")]

    async def recovered() -> bool:
        return bool(logged("audit.recovered"))

    async def agreed() -> bool:
        there = {json.loads(message.partition(b" - ")[2])["id"] for message in server.messages}
        missing = sum(json.loads(line)["id"] not in there for line in file.read_text().splitlines())
        told = [event["dropped"] for event in logged("audit.recovered")]
        return missing > 0 and abs(sum(told) - missing) <= len(told)  # what the log says of itself meanwhile

    async with serving(server, port):
        async with AuditLog(config, "b1", database, tmp_path) as log:
            loop = asyncio.get_running_loop()
            slowest = 0.0
            for number in range(1500):
                began = loop.time()
                await log.emit(Event.CONFIG_RELOADED, number=number, padding="x" * 4000)
                slowest = max(slowest, loop.time() - began)
            assert slowest < 0.9
            assert await log.settle(), "the database has all of it"
            server.reads.set()
            await eventually(recovered, "it is said")

            async def goes_on() -> bool:
                await log.emit(Event.CONFIG_RELOADED, number=9999)
                return any(b'"number": 9999' in message for message in server.messages[-5:])

            await eventually(goes_on, "it goes on")
        await eventually(agreed, "what did not come was counted")
