import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import docker
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from docker.tls import TLSConfig

from bastion import config
from bastion.containers.attach import HIGH_WATER, RECEIVE, Attach, attach
from bastion.containers.engine import Engine
from bastion.containers.frames import joined
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Chunk, Stream
from demo.images import busybox_tar, import_tree
from tests.containers.conftest import drained
from tests.containers.test_frames import framed
from tests.servers.engine import BUSYBOX
from tests.servers.engine import Engine as DockerEngine
from tests.servers.process import accepts, free_port, running, wait_until

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def pretender(folder: Path, talk: Talk) -> AsyncIterator[Engine]:
    """An engine that says to a start of an exec what no real one would."""

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"POST /exec/0123/start HTTP/1.1\r\n")
            await reader.readuntil(b"}")
            await talk(reader, writer)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), 5)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            writer.transport.abort()

    server = await asyncio.start_unix_server(serve, folder / "s")
    engine = Engine(config.Engine(url=f"unix://{folder}/s", timeout=1))
    try:
        yield engine
    finally:
        await engine.close()
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def saying(answer: bytes) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return talk


UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


async def all_of(attached: Attach) -> list[Chunk]:
    chunks: list[Chunk] = []
    while got := await attached.read():
        chunks += got
    return joined(chunks)


@pytest.mark.parametrize("head", [UPGRADED, UPGRADED.replace(b"101 UPGRADED", b"200 OK")])
async def test_output_in_one_packet_with_the_answer_is_kept(tmp_path: Path, head: bytes) -> None:
    frames: list[Chunk] = [(Stream.OUTPUT, b"first"), (Stream.ERROR, b"second")]
    async with pretender(tmp_path, saying(head + framed(frames))) as engine:
        attached = await attach(engine, "0123", tty=False, timeout=5)
        assert await all_of(attached) == frames
        await attached.close()
    (tmp_path / "s").unlink()
    async with pretender(tmp_path, saying(head + b"raw")) as engine:
        attached = await attach(engine, "0123", tty=True, timeout=5)
        assert await all_of(attached) == [(Stream.OUTPUT, b"raw")]
        await attached.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'409 Conflict\r\nContent-Length: 24\r\n\r\n{"message":"x is paused"}', Reason.CONTAINER_PAUSED),
        (b'409 Conflict\r\n\r\n{"message":"Container x is not running"}', Reason.CONTAINER_NOT_RUNNING),
        (b"503 Busy\r\n\r\n", Reason.ENGINE_UNAVAILABLE),
        (b"500 Oh\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000, Reason.ENGINE_ERROR),
        (b"500 Oh\r\nContent-Length: many\r\n\r\n", Reason.ENGINE_ERROR),
        (b"nonsense\r\n\r\n", Reason.ENGINE_ERROR),
        (b"101 OK\r\nX: " + b"x" * 1_000_000, Reason.ENGINE_ERROR),
        (b"", Reason.ENGINE_UNAVAILABLE),
    ],
)
async def test_any_other_answer_is_a_refusal(tmp_path: Path, answer: bytes, reason: Reason) -> None:
    async with pretender(tmp_path, saying(b"HTTP/1.1 " + answer if answer else b"")) as engine:
        with pytest.raises(Refusal) as caught:
            await attach(engine, "0123", tty=False, timeout=5)
        assert caught.value.reason is reason
        assert isinstance(caught.value, Unavailable) == (reason is Reason.ENGINE_UNAVAILABLE)


async def test_an_engine_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with pretender(tmp_path, silent) as engine:
        with pytest.raises(Unavailable):
            await attach(engine, "0123", tty=False, timeout=0.2)
    with pytest.raises(Unavailable):
        await attach(Engine(config.Engine(url="unix:///nowhere/s")), "0123", tty=False, timeout=5)


async def test_what_came_before_a_broken_frame_is_read_and_then_it_is_an_error(tmp_path: Path) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(UPGRADED + framed([(Stream.OUTPUT, b"good")]))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"\x07nonsense")
        await writer.drain()

    async with pretender(tmp_path, talk) as engine:
        attached = await attach(engine, "0123", tty=False, timeout=5)
        assert await attached.read() == [(Stream.OUTPUT, b"good")]
        with pytest.raises(Refusal) as caught:
            await attached.read()
        assert caught.value.reason is Reason.ENGINE_ERROR
        await attached.close()


async def test_output_survives_an_engine_that_takes_no_more_input(tmp_path: Path) -> None:
    output = os.urandom(2_000_000)

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(UPGRADED + output)
        await writer.drain()

    async with pretender(tmp_path, talk) as engine:
        attached = await attach(engine, "0123", tty=True, timeout=5)
        got = [data for _, data in await attached.read()]
        while chunks := await attached.read():
            got += [data for _, data in chunks]
            attached.write(b"typed" * 10_000)  # sooner or later: broken pipe, or reset by peer
        assert b"".join(got) == output
        await attached.close()


@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("size", [1, 30_000])
async def test_what_nobody_reads_waits_in_the_engine(tmp_path: Path, tty: bool, size: int) -> None:
    sent, enough = 0, 3_000_000

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(UPGRADED)
        while sent < enough:
            packet = b"x" * size if tty else framed([(Stream.OUTPUT, b"x" * size), (Stream.ERROR, b"y" * size)])
            writer.write(packet * (200_000 // len(packet)))
            sent += 200_000 // len(packet) * len(packet)
            await writer.drain()

    async with pretender(tmp_path, talk) as engine:
        attached = await attach(engine, "0123", tty=tty, timeout=5)
        stalls = asyncio.Event()
        attached.on_stall = stalls.set
        await asyncio.wait_for(stalls.wait(), 10)
        assert attached.stalled
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert attached.buffered <= HIGH_WATER + RECEIVE + 1000
        assert sent <= before + 400_000
        total = 0
        while chunks := await attached.read():
            total += sum(len(data) for _, data in chunks)
            assert sum(len(data) for _, data in chunks) <= HIGH_WATER + RECEIVE
        assert sent >= enough
        assert total == sent if tty else total < sent
        await attached.close()


async def test_input_waits_for_an_engine_that_reads_none(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    received = hashlib.sha256()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(UPGRADED)
        await writer.drain()
        await go_on.wait()
        while data := await reader.read(65536):
            received.update(data)
        writer.write(b"all read")
        await writer.drain()

    async with pretender(tmp_path, talk) as engine:
        attached = await attach(engine, "0123", tty=True, timeout=5)
        data = os.urandom(65536)
        written = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while written < 1000:
                    attached.write(data)
                    written += 1
                    await drained(attached)
        assert attached.unsent <= HIGH_WATER + len(data)
        assert written < 100
        attached.write_eof()
        attached.write(b"after the end")
        go_on.set()
        assert await all_of(attached) == [(Stream.OUTPUT, b"all read")]
        assert received.digest() == hashlib.sha256(data * written).digest()
        await attached.close()


async def test_close_wakes_who_waits(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(UPGRADED)
        await asyncio.sleep(30)

    async with pretender(tmp_path, talk) as engine:
        attached = await attach(engine, "0123", tty=True, timeout=5)
        attached.write(b"x" * 10_000_000)
        reading, draining = asyncio.create_task(attached.read()), asyncio.create_task(drained(attached))
        await asyncio.sleep(0.05)
        assert not reading.done()
        assert not draining.done()
        await attached.close()
        await attached.close()
        assert await asyncio.wait_for(reading, 5) == []
        await asyncio.wait_for(draining, 5)
        attached.write(b"nothing")
        attached.write_eof()


# --- the real engine, by TLS


def certificates(folder: Path) -> None:
    """ca.pem, and {server,client}-{cert,key}.pem signed by it."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])

    def issue(name: x509.Name, key: ec.EllipticCurvePrivateKey, purpose: x509.ObjectIdentifier | None) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=purpose is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if purpose is not None:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        else:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(issue(ca_name, ca_key, None))
    for who, purpose in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
        (folder / f"{who}-cert.pem").write_bytes(issue(name, key, purpose))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{who}-key.pem").write_bytes(pem)


@pytest.fixture(scope="session")
def by_tls(servers_folder: Path) -> Iterator[tuple[config.Engine, str]]:
    """How to reach a dockerd with --tlsverify, and a container in it."""
    folder = servers_folder / "tls"
    folder.mkdir()
    certificates(folder)
    port = free_port()
    command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile"]
    command += [f"{folder}/pid", "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{folder}/ca.pem"]
    command += ["--tlscert", f"{folder}/server-cert.pem", "--tlskey", f"{folder}/server-key.pem"]
    command += ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    files = config.EngineTls(ca=folder / "ca.pem", cert=folder / "client-cert.pem", key=folder / "client-key.pem")
    section = config.Engine(url=f"tcp://127.0.0.1:{port}", tls=files, timeout=30)
    with pytest.MonkeyPatch.context() as environment, running(command, folder / "dockerd.log") as process:
        environment.delenv("REQUESTS_CA_BUNDLE", raising=False)  # would replace the CA of docker-py
        environment.delenv("CURL_CA_BUNDLE", raising=False)
        wait_until(lambda: accepts(port) or process.poll() is not None, "dockerd answers by TLS")
        tls = TLSConfig(client_cert=(str(files.cert), str(files.key)), ca_cert=str(files.ca), verify=True)
        client = docker.DockerClient(base_url=section.url, tls=tls, timeout=60)
        try:
            import_tree(client, busybox_tar(), BUSYBOX)
            container = client.containers.run(BUSYBOX, "sleep 1000000", detach=True, network_mode="none")
            yield section, container.id
            container.remove(force=True)
        finally:
            client.close()


async def started(engine: Engine, container: str, command: str, tty: bool = False) -> Attach:
    created = await engine.call(
        lambda client: client.exec_create(container, ["sh", "-c", command], stdin=True, tty=tty)
    )
    return await attach(engine, created["Id"], tty=tty, timeout=30)


@pytest.fixture(params=["unix", "tls"])
async def engine_and_container(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Engine, str]]:
    if request.param == "tls":
        section, container = request.getfixturevalue("by_tls")
    else:
        real: DockerEngine = request.getfixturevalue("engine")
        section, container = config.Engine(url=real.url, timeout=30), real.run().id
    engine = Engine(section)
    yield engine, container
    await engine.close()


async def test_half_close_while_output_goes_on(engine_and_container: tuple[Engine, str]) -> None:
    attached = await started(*engine_and_container, "wc -c; echo after >&2; head -c 3000000 /dev/zero; sha1sum")
    attached.write(b"12345")
    attached.write_eof()
    chunks = sorted(await all_of(attached), key=lambda chunk: chunk[0])  # the engine promises no order of the two
    error, out = joined(chunks)
    assert error == (Stream.ERROR, b"after\n")
    assert out[1] == b"5\n" + bytes(3_000_000) + hashlib.sha1(b"").hexdigest().encode() + b"  -\n"
    await attached.close()


async def test_five_megabytes_through_cat_come_back_as_they_were(engine_and_container: tuple[Engine, str]) -> None:
    attached = await started(*engine_and_container, "cat")
    data = bytes(range(256)) + os.urandom(5 << 20)

    async def feed() -> None:
        for begin in range(0, len(data), 50_000):
            attached.write(data[begin : begin + 50_000])
            await drained(attached)
        attached.write_eof()

    chunks, _ = await asyncio.gather(all_of(attached), feed())
    assert chunks == [(Stream.OUTPUT, data)]
    await attached.close()


async def test_keys_echo_in_a_terminal(engine_and_container: tuple[Engine, str]) -> None:
    attached = await started(*engine_and_container, "stty raw -echo; echo go; exec cat", tty=True)
    assert joined(await attached.read()) == [(Stream.OUTPUT, b"go\n")]
    for number in range(100):
        key = b"%d" % number
        attached.write(key)
        echo = b""
        while len(echo) < len(key):
            echo += b"".join(data for _, data in await attached.read())
        assert echo == key
    await attached.close()


async def test_only_the_configured_ca_is_believed(
    by_tls: tuple[config.Engine, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, _ = by_tls
    certificates(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    engine = Engine(section)
    assert await engine.call(lambda client: client.ping())
    await engine.close()
    assert section.tls is not None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(section.tls.ca))
    wrong = Engine(section.model_copy(update={"tls": section.tls.model_copy(update={"ca": tmp_path / "ca.pem"})}))
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        await wrong.call(lambda client: client.ping())
    await wrong.close()


async def test_a_plain_tcp_engine(engine: DockerEngine) -> None:
    """The engine behind a TCP port: what `tcp://` without TLS means."""
    path = engine.url.removeprefix("unix://")

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        back, forth = await asyncio.open_unix_connection(path)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, forth), pump(back, writer))
        for end in (writer, forth):
            end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    own = Engine(config.Engine(url=f"tcp://127.0.0.1:{port}", timeout=30))
    attached = await started(own, engine.run().id, "wc -c")
    attached.write(b"x" * 1_000_000)
    attached.write_eof()
    assert await all_of(attached) == [(Stream.OUTPUT, b"1000000\n")]
    await attached.close()
    await own.close()
    server.close()
    await asyncio.wait(tasks, timeout=10)
