"""The data plane of an exec: the hijacked HTTP/1.1 connection of POST /exec/{id}/start, spoken over the bare socket.

Not docker-py: it leaves the first output in a buffer of http.client. Not an asyncio transport: one that fails to write
(the program ended, its client goes on typing) throws away what it has not read yet, and it can not half-close TLS.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bastion.containers.engine import Engine
from bastion.containers.frames import Frames, joined
from bastion.containers.tls import Tls
from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Stream

HIGH_WATER = 256 << 10  # bytes that may wait on either side before the other end has to
OVERHEAD = 128  # bytes that a chunk costs beside its own: many small ones fill the buffer too
RECEIVE = 256 << 10  # bytes a read
MAX_HEAD = 16 << 10  # bytes of the answer's head, or of the message of an answer that is a no


class Attach:
    """The streams of a started exec, read and written by one task each."""

    def __init__(self, connection: socket.socket, tls: Tls | None, *, tty: bool, description: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._tls = tls
        self._frames = None if tty else Frames()
        self._description = description
        self._chunks: list[Chunk] = []
        self.buffered = 0  # bytes that `read` has not taken yet
        self.reads = 0  # how often `read` has taken something
        self.on_stall: Callable[[], None] | None = None  # called whenever the engine has to wait for `read`
        self.on_output: Callable[[], None] | None = None  # called when there is something to `take`
        self.on_drained: Callable[[], None] | None = None  # called when it is no longer `full`
        self._limit = HIGH_WATER
        self._reading = False
        self._at_eof = False
        self._failure: Refusal | None = None
        self._readable: asyncio.Future[None] | None = None
        self._unsent = bytearray()  # what the engine has not taken yet
        self._ends_writing = False
        self._writing_ended = False
        self._closed = False

    @property
    def at_eof(self) -> bool:
        """Has everything arrived (and waits for `read`, perhaps)?"""
        return self._at_eof

    @property
    def stalled(self) -> bool:
        """Does the engine have to wait because nobody reads?"""
        return not self._reading and not self._at_eof and not self._closed

    async def read(self) -> list[Chunk]:
        """All that has arrived, in order, one chunk for each run of a stream; [] at the end.

        Raises `Refusal` (ENGINE_ERROR) where the engine speaks nonsense, after what it said before.
        """
        while (chunks := self.take()) is None:
            self._readable = self._loop.create_future()
            try:
                await self._readable
            finally:
                self._readable = None
        return chunks

    def take(self) -> list[Chunk] | None:
        """The same at once; None if nothing has arrived yet."""
        if not self._chunks:
            if self._failure is not None:
                raise self._failure
            return [] if self._at_eof or self._closed else None
        chunks, self._chunks, self.buffered = self._chunks, [], 0
        self.reads += 1
        self._resume()
        return joined(chunks) if len(chunks) > 1 else chunks

    def allow(self, size: int) -> None:
        """Let `size` bytes wait unread from now on: the rest of a program that has ended, for the engine's sake."""
        self._limit = size
        if self.buffered <= size:
            self._resume()

    def write(self, data: bytes) -> None:
        """Send input, now or as soon as the engine takes it; dropped where the program does not read any more."""
        if self._ends_writing or self._writing_ended or not data:
            return
        self._send(self._tls.encrypt(data) if self._tls else data)

    @property
    def unsent(self) -> int:
        """Bytes that the engine has not taken yet."""
        return len(self._unsent)

    @property
    def full(self) -> bool:
        """Are more than `HIGH_WATER` bytes of input unsent?"""
        return self.unsent > HIGH_WATER and not self._closed

    def write_eof(self) -> None:
        """Half-close: after all input the program reads its end, and its output goes on."""
        if self._ends_writing or self._writing_ended:
            return
        self._ends_writing = True
        if self._tls:
            self._send(self._tls.close_notify())
        elif not self._unsent:
            self._shutdown()

    async def close(self) -> None:
        """Let go of the connection at once; the program is not told (see processes)."""
        self.abort()

    def abort(self) -> None:
        """`close`, where nothing can be awaited."""
        if self._closed:
            return
        self._closed = True
        self._stop_reading()
        self._stop_writing()
        self._socket.close()
        self._wake_reader()

    def start(self, early: bytes) -> None:
        """Begin to receive; `early` came in one packet with the engine's answer."""
        self._received(early)
        self._resume()

    def _resume(self) -> None:
        if not self._reading and not self._at_eof and not self._closed and self.buffered <= self._limit:
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
            ended = not data
            if self._tls and data:
                data, ended = self._tls.decrypt(data)
                if outgoing := self._tls.outgoing():  # a key update, say
                    self._send(outgoing)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset: the engine ended it while input was on its way; ssl.SSLError is one too
            data, ended = b"", True
        try:
            self._received(data)
        except ValueError as error:
            log = f"{self._description}: {error}"
            self._failure = Refusal(Reason.ENGINE_ERROR, "The container engine sent something unreadable.", log)
            ended = True
        if ended:
            self._stop_reading()
            self._at_eof = True
            self._wake_reader()

    def _received(self, data: bytes) -> None:
        if not data:
            return
        self._chunks += [(Stream.OUTPUT, data)] if self._frames is None else self._frames.feed(data)
        self.buffered += len(data) + OVERHEAD
        if self._chunks:
            self._wake_reader()
        if self.buffered > self._limit:
            self._stop_reading()
            if self.on_stall is not None:
                self.on_stall()

    def _wake_reader(self) -> None:
        if self.on_output is not None:
            self.on_output()
        elif self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            sent = self._try_send(data)
            if sent == len(data) or self._writing_ended:
                return
            self._loop.add_writer(self._socket.fileno(), self._on_writable)
            data = data[sent:]
        self._unsent += data

    def _on_writable(self) -> None:
        sent = self._try_send(self._unsent)
        if self._writing_ended:
            return
        del self._unsent[:sent]
        if self.unsent <= HIGH_WATER:
            self._wake_writer()
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())
            if self._ends_writing and not self._tls:
                self._shutdown()

    def _try_send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # the engine takes no more: the program has ended, and its output may still be on its way
            self._stop_writing()
            return 0

    def _shutdown(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._writing_ended = True

    def _stop_writing(self) -> None:
        if self._unsent:
            self._loop.remove_writer(self._socket.fileno())
            self._unsent.clear()
        self._writing_ended = True
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self.on_drained is not None:
            self.on_drained()


async def attach(
    engine: Engine, exec_id: str, *, tty: bool, timeout: float, console_size: tuple[int, int] | None = None
) -> Attach:
    """Start the exec and attach to it (Docker API, ExecStart); `timeout` in seconds until the engine's answer.

    `console_size` (rows, columns) is heeded from API 1.42 on. Raises `Unavailable`, or `Refusal` for an answer that is
    a no: CONTAINER_PAUSED, CONTAINER_NOT_RUNNING, ENGINE_ERROR. For a command that can not be run, see exec.
    """
    body: dict[str, object] = {"Detach": False, "Tty": tty}
    if console_size is not None:
        body["ConsoleSize"] = console_size
    content = json.dumps(body).encode()
    request = (
        f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content
    description = f"engine {engine.name!r} at {engine.section.url}, exec {exec_id[:12]}"
    connection: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout):
            connection, host = await _connect(engine)
            tls = None if engine.section.tls is None else Tls(await engine.ssl_context(), host)
            early = await _Opening(engine, connection, tls).request(request)
            attached = Attach(connection, tls, tty=tty, description=description)
            attached.start(early)
            connection = None
            return attached
    except (TimeoutError, OSError) as error:
        raise engine.unavailable(f"{description}: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise Refusal(
            Reason.ENGINE_ERROR, "The container engine could not do this.", f"{description}: {error}"
        ) from error
    finally:
        if connection is not None:
            connection.close()


async def _connect(engine: Engine) -> tuple[socket.socket, str]:
    """A connected socket, and the host's name for TLS."""
    loop = asyncio.get_running_loop()
    url = urlsplit(engine.section.url)
    if url.scheme in ("unix", "http+unix"):
        families = [(socket.AF_UNIX, url.netloc + url.path)]
        return await _first(loop, families), ""
    host, port = url.hostname or "localhost", url.port or (2375 if engine.section.tls is None else 2376)
    found = await engine.call(lambda _: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return await _first(loop, [(entry[0], entry[4]) for entry in found]), host


async def _first(loop: asyncio.AbstractEventLoop, addresses: Sequence[tuple[int, Any]]) -> socket.socket:
    """The first of `addresses` that takes a connection."""
    problem: OSError = OSError("no address")
    for family, address in addresses:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            if family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            connection.close()
            problem = error
        except BaseException:
            connection.close()
            raise
    raise problem


class _Opening:
    """From the connected socket to the answer's head."""

    def __init__(self, engine: Engine, connection: socket.socket, tls: Tls | None) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._tls = tls

    async def request(self, request: bytes) -> bytes:
        """Send it, and return the output that came in one packet with the 101 (or 200, from old engines)."""
        if self._tls:
            done = self._tls.handshake(b"")
            while True:
                await self._loop.sock_sendall(self._socket, self._tls.outgoing())
                if done:
                    break
                if not (data := await self._loop.sock_recv(self._socket, RECEIVE)):
                    raise OSError("closed during the TLS handshake")
                done = self._tls.handshake(data)
        await self._loop.sock_sendall(self._socket, self._tls.encrypt(request) if self._tls else request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await self._receive(received)
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise ValueError(f"not an HTTP answer: {lines[0]!r}")
        if (status := int(words[1])) in (101, 200):
            return rest
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        raise self._engine.refusal(status, await self._message(headers, rest))

    async def _message(self, headers: Mapping[str, str], body: bytes) -> str:
        """The engine's words in the body of an answer that is a no."""
        with contextlib.suppress(OSError):
            while len(body) < int(headers.get("content-length", MAX_HEAD)):
                body += await self._receive(body)
        try:
            return str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            return body.decode("utf-8", "backslashreplace")

    async def _receive(self, so_far: bytes) -> bytes:
        if len(so_far) > MAX_HEAD:
            raise ValueError(f"an answer with a head of more than {MAX_HEAD} bytes")
        data = await self._loop.sock_recv(self._socket, RECEIVE)
        ended = not data
        if self._tls and data:
            data, ended = self._tls.decrypt(data)
        if ended and not data:
            raise OSError("closed before its answer")
        return data
