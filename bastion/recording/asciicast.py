"""asciicast v2 that loses no byte: header, events, and reading them back.

Format: https://docs.asciinema.org/manual/asciicast/v2/. Text is kept as JSON in ASCII; a byte that is no UTF-8 is the
lone surrogate U+DC80+byte (PEP 383), so encoding what was read gives the same bytes again. The codes beside `o`, `i`
and `r` are our own; players skip codes that they do not know.
"""

import codecs
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from typing import BinaryIO

import orjson
import pybase64
import zstandard

from bastion.errors import BastionError
from bastion.model import Stream
from bastion.recording.sealing import SealingError, Unsealer, sealed_part


class Code(StrEnum):
    """What an event tells. The first three are the format's."""

    OUTPUT = "o"
    INPUT = "i"
    RESIZE = "r"  # data is "80x24"
    ERROR = "e"  # stderr of a session without a terminal
    OUTPUT_BINARY = "ob"  # base64 of what is not text
    INPUT_BINARY = "ib"
    ERROR_BINARY = "eb"
    PASSED_ON = "p"  # input passed on; text in it is WITHHELD until an `i` or `x` tells what it was
    REDACTED = "x"  # one contiguous input that was not echoed; data is WITHHELD whatever its length
    TRUNCATED = "t"  # from here on the stream named in data is only counted and hashed
    END = "z"  # the session ended in order; data says how
    CHAIN = "h"  # number and SHA-256 of the block of lines before it
    SEALED = "s"  # lines, compressed and encrypted


WITHHELD = "***"

STREAMS: Mapping[str, Stream] = {stream + suffix: stream for stream in Stream for suffix in ("", "b")}


class RecordingError(BastionError):
    """A recording can not be read; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a recording. `terminal` is false for a session without one; its size is then 80x24."""

    session_id: str
    user: str
    address: str
    timestamp: int  # Unix time of the start, seconds
    columns: int = 80
    rows: int = 24
    terminal: bool = False
    command: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `data` holds a stream's own bytes; for other codes UTF-8 text."""

    time: float  # seconds since the start
    code: str
    data: bytes

    @property
    def stream(self) -> Stream | None:
        """The stream whose bytes these are, if they are any's."""
        return STREAMS.get(self.code)


def encode_header(header: Header) -> bytes:
    fields: dict[str, object] = {
        "version": 2,
        "width": header.columns,
        "height": header.rows,
        "timestamp": header.timestamp,
    }
    if header.command is not None:
        fields["command"] = header.command
    fields["env"] = dict(header.env)
    fields["bastion"] = {
        "session_id": header.session_id,
        "user": header.user,
        "address": header.address,
        "terminal": header.terminal,
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def encode_sealed_header(header: Header, sealed: Mapping[str, object]) -> bytes:
    """What anybody may read of an encrypted recording; the whole header is the first of what is sealed."""
    ours = {"session_id": header.session_id, "sealed": sealed}
    fields = {"version": 2, "width": header.columns, "height": header.rows, "timestamp": header.timestamp}
    return json.dumps({**fields, "bastion": ours}).encode("ascii") + b"\n"


def decode_header(line: bytes) -> Header:
    """Raises RecordingError."""
    try:
        fields = json.loads(line)
        if fields["version"] != 2:
            raise RecordingError(f"not asciicast v2 but version {fields['version']!r}")
        ours = fields.get("bastion", {})
        return Header(
            session_id=str(ours.get("session_id", "")),
            user=str(ours.get("user", "")),
            address=str(ours.get("address", "")),
            timestamp=int(fields.get("timestamp", 0)),
            columns=int(fields["width"]),
            rows=int(fields["height"]),
            terminal=bool(ours.get("terminal", True)),
            command=fields.get("command"),
            env=fields.get("env", {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RecordingError(f"not an asciicast header: {error!r}") from error


def encode_text(time: float, code: str, text: str) -> bytes:
    """An event of text, which may hold surrogate escapes."""
    # orjson is five times as fast, but neither escapes to ASCII nor takes lone surrogates
    body = orjson.dumps(text) if text.isascii() else encode_basestring_ascii(text).encode("ascii")
    return b'[%.6f, "%b", %b]\n' % (time, code.encode("ascii"), body)


def encode_binary(time: float, stream: Stream, data: bytes) -> bytes:
    """An event of bytes that are no text."""
    return b'[%.6f, "%bb", "%b"]\n' % (time, stream.encode("ascii"), pybase64.b64encode(data))


def decode_event(line: bytes) -> Event:
    """Raises RecordingError."""
    try:
        time, code, data = json.loads(line)
        if not (isinstance(time, int | float) and isinstance(code, str) and isinstance(data, str)):
            raise RecordingError("not an asciicast event: [seconds, code, text] expected")
        if code in STREAMS and code.endswith("b"):
            return Event(float(time), code, pybase64.b64decode(data, validate=True))
        return Event(float(time), code, data.encode("utf-8", "surrogateescape"))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RecordingError(f"not an asciicast event: {error}") from error


def text_of(data: bytes) -> str:
    """Every byte string as text, and back by `.encode("utf-8", "surrogateescape")`."""
    return data.decode("utf-8", "surrogateescape")


def split_text(data: bytes) -> tuple[str, bytes]:
    """`data` as text, and its last bytes (at most 3) if a character starts there that is not complete."""
    text, used = codecs.utf_8_decode(data, "surrogateescape", False)
    return text, data[used:]


_CONTROLS = bytes(set(range(32)) - set(b"\a\b\t\n\v\f\r\x1b"))
_HIGH = bytes(range(128, 256))
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
_SAMPLE = 4096  # bytes that decide whether a chunk that is no UTF-8 is text all the same, say in Latin-1


def _looks_like_text(data: bytes) -> bool:
    sample = data[:_SAMPLE]
    ascii_only = sample.translate(None, _HIGH)
    return 2 * len(ascii_only) >= len(sample) and len(ascii_only.translate(None, _CONTROLS)) == len(ascii_only)


class StreamEncoder:
    """The events of one stream of a session without a terminal: each chunk is written out at once, nothing held back.

    A character split over two chunks is kept as the escapes of its bytes, and does not turn the rest into base64.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._split = b""  # the last chunk's incomplete character

    def encode(self, time: float, data: bytes) -> bytes:
        if b"\0" in data:
            self._split = b""
            return encode_binary(time, self._stream, data)
        rest = _continuation(self._split, data)
        try:
            text, used = codecs.utf_8_decode(data[rest:], "strict", False)
        except UnicodeDecodeError:
            self._split = b""
            if not _looks_like_text(data):
                return encode_binary(time, self._stream, data)
            return encode_text(time, self._stream, text_of(data))
        tail = data[rest + used :]
        if rest or tail:
            text = text_of(data[:rest]) + text + text_of(tail)
            self._split = self._split + data if rest == len(data) else tail
        else:
            self._split = b""
        return encode_text(time, self._stream, text)


def _continuation(split: bytes, data: bytes) -> int:
    """How many bytes at the start of `data` go on with the incomplete character `split`."""
    if not split:
        return 0
    missing = (2 if split[0] < 0xE0 else 3 if split[0] < 0xF0 else 4) - len(split)
    head = data[:missing]
    return len(head) - len(head.lstrip(_CONTINUATION_BYTES))


class Reader:
    """Reads a recording from its start: `header`, then the events by iteration or `read`.

    The recording may still grow: what has come meanwhile is there for the next `read`. Raises RecordingError for a
    broken line, SealingError where it is encrypted and none of the identities opens it. A last line without its end,
    which is what a crash leaves, is no error: see `truncated`.
    """

    def __init__(self, file: BinaryIO, identities: Sequence[str] = ()) -> None:
        self._file = file
        self._rest = b""  # a last line without its end
        self._number = 0
        self._unsealed: deque[bytes] = deque()
        self._unsealer: Unsealer | None = None
        self.header_line = self._line()
        if self.header_line is not None and (sealed := sealed_part(self.header_line)) is not None:
            self._unsealer = Unsealer(sealed, identities)
            self.header_line = self.read_line()
        if self.header_line is None:
            nothing = not self._rest and self._number == 0
            raise RecordingError("the recording is empty" if nothing else "the recording's header is cut short")
        self.header = decode_header(self.header_line)

    @property
    def truncated(self) -> str | None:
        """After the last event: a sentence if what follows it is none."""
        if not self._rest:
            return None
        return f"the recording is cut short in line {self._number + 1}: its last {len(self._rest)} bytes are no event"

    def __iter__(self) -> Iterator[Event]:
        return iter(self.read, None)

    def read(self) -> Event | None:
        """The next event; None where there is no more at the moment. What guards the file is left out."""
        while (line := self.read_line()) is not None:
            event = self._decode(line)
            if event.code != Code.CHAIN:
                return event
        return None

    def read_line(self) -> bytes | None:
        """The next line, decrypted; None where there is no more at the moment."""
        if self._unsealer is None:
            return self._line()
        while not self._unsealed:
            line = self._line()
            if line is None:
                return None
            event = self._decode(line)
            if event.code == Code.SEALED:
                self._unseal(self._unsealer, event)
        return self._unsealed.popleft()

    def _line(self) -> bytes | None:
        """The next whole line. RecordingError where a compressed file is damaged."""
        try:
            line = self._file.readline()
        except zstandard.ZstdError as error:
            raise RecordingError(f"line {self._number + 1}: the file can not be decompressed: {error}") from error
        if self._rest:
            line, self._rest = self._rest + line, b""
        if not line.endswith(b"\n"):
            self._rest = line
            return None
        self._number += 1
        return line

    def _unseal(self, unsealer: Unsealer, event: Event) -> None:
        try:
            self._unsealed.extend(unsealer.unseal(event.data.decode("ascii", "replace")).splitlines(keepends=True))
        except SealingError as error:
            raise RecordingError(f"line {self._number}: {error}") from error

    def _decode(self, line: bytes) -> Event:
        try:
            return decode_event(line)
        except RecordingError as error:
            raise RecordingError(f"line {self._number}: {error}") from error
