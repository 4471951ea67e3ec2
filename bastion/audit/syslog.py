"""Audit events to a syslog server: RFC 5424, over UDP, TCP, TLS or a unix socket."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections import deque
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from bastion.audit.events import Entry
from bastion.config import Syslog as SyslogConfig

CONNECT_LIMIT = 4.0  # seconds; less than a write may take
DATAGRAM = 65_000  # bytes of one; what is longer is cut
FACILITIES = {"auth": 4, "authpriv": 10} | {f"local{number}": 16 + number for number in range(8)}  # RFC 5424, 6.2.1
ERROR, WARNING, INFORMATIONAL = 3, 4, 6
SEVERITIES = {  # by an event's name; else informational
    "audit.failed": ERROR,
    "recording.failed": ERROR,
    "user.login_failed": WARNING,
    "access.denied": WARNING,
    "command.denied": WARNING,
    "command.alerted": WARNING,
    "alert.raised": WARNING,
    "session.killed": WARNING,
}
LOOK = 0.005  # seconds between two looks whether the other side has what was sent


class Syslog:
    """One message an event; its text is the event's line.

    write() returns when the server's machine has all of a batch (over TCP and TLS: its kernel has acknowledged it), or,
    over UDP, when it is sent. A connection that breaks before is made anew, and the batch sent again: an event may come
    twice, with the same id.
    """

    def __init__(self, config: SyslogConfig) -> None:
        self.name = f"audit.syslog {config.url}"
        self._config = config
        self._facility = FACILITIES[config.facility]
        self._connection: _Datagrams | _Stream | None = None

    async def open(self) -> None:
        """It connects when it is first used: a server that is down stops nothing."""

    async def write(self, batch: Sequence[Entry]) -> int:
        """OSError where the server can not be reached."""
        if self._connection is not None and self._connection.closed:
            await self.close()  # while nothing was said
        try:
            if self._connection is None:
                async with asyncio.timeout(CONNECT_LIMIT):
                    self._connection = await _connect(self._config)
            await self._connection.send([self.message(entry) for entry in batch])
        except BaseException:
            await self.close()
            raise
        return len(batch)

    def message(self, entry: Entry) -> bytes:
        """RFC 5424, section 6: the event's name is the MSGID."""
        fields = entry.fields
        priority = self._facility * 8 + SEVERITIES.get(str(fields["event"]), INFORMATIONAL)
        head = f"<{priority}>1 {fields['time']} {fields['bastion_id']} bastion {os.getpid()} {fields['event']} - "
        return (head + entry.line).encode()

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


class _Datagrams:
    """UDP (RFC 5426), and a unix socket such as /dev/log: a message is a datagram."""

    closed = False

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send(self, messages: Sequence[bytes]) -> None:
        waiting = deque(messages)
        while waiting:
            try:
                self._socket.send(waiting[0][:DATAGRAM])
                waiting.popleft()
            except BlockingIOError:  # the other side of a unix socket takes no more at the moment
                await asyncio.sleep(LOOK)

    def close(self) -> None:
        self._socket.close()


class _Stream:
    """TCP and TLS with octet counting (RFC 6587, 3.4.1; RFC 5425); a unix stream with a newline behind each message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        self._reader = reader  # nothing comes but the end
        self._writer = writer
        self._counted = counted
        writer.transport.set_write_buffer_limits(high=0)  # drain() returns when the kernel has it all

    async def send(self, messages: Sequence[bytes]) -> None:
        framed = [b"%d %b" % (len(one), one) if self._counted else one + b"\n" for one in messages]
        self._writer.write(b"".join(framed))
        await self._writer.drain()
        while _unacknowledged(self._writer.get_extra_info("socket")):
            if self.closed:
                break
            await asyncio.sleep(LOOK)
        if self.closed:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")

    @property
    def closed(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        self._writer.transport.abort()


async def _connect(config: SyslogConfig) -> _Datagrams | _Stream:
    url = urlsplit(config.url)
    if url.scheme == "unix":
        return await _connect_unix(url.path)
    assert url.hostname is not None
    if url.scheme == "udp":
        return await _connect_udp(url.hostname, url.port or 514)
    context = ssl.create_default_context(cafile=config.ca_file) if url.scheme == "tls" else None
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    return _Stream(reader, writer, counted=True)


async def _connect_udp(host: str, port: int) -> _Datagrams:
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    with _closed_on_error(made):
        made.connect(address)
    return _Datagrams(made)


async def _connect_unix(path: str) -> _Datagrams | _Stream:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        with _closed_on_error(made):
            made.connect(path)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:  # a stream listens there
            raise
        return _Stream(*await asyncio.open_unix_connection(path), counted=False)
    return _Datagrams(made)


@contextlib.contextmanager
def _closed_on_error(made: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        made.close()
        raise


def _unacknowledged(connected: socket.socket) -> int:
    """Bytes that the other side does not have yet (tcp(7), unix(7): SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
