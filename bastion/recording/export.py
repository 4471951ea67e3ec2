"""A recording for other programs: asciicast for asciinema, and the files that script(1) writes for scriptreplay."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Protocol

from bastion.errors import printable
from bastion.model import Stream
from bastion.recording.asciicast import Code, Event, Header, Reader, encode_text, text_of
from bastion.recording.escapes import Filter
from bastion.recording.player import SIZE
from bastion.recording.position import format_position
from bastion.recording.rendering import MakeTerminal, rendered


class Passing(Protocol):
    """What lets through what may be shown: Filter, or Unfiltered."""

    def feed(self, data: bytes) -> bytes: ...


class Unfiltered:
    """Lets every byte through."""

    def feed(self, data: bytes) -> bytes:
        return data


def standard(reader: Reader, passing: Callable[[], Passing]) -> Iterator[Event]:
    """Output with stderr in it, input, and sizes: what other programs know, under asciicast's own codes.

    Masked input is the `***` that stands for it.
    """
    streams = {stream: passing() for stream in Stream}
    for event in reader:
        if event.stream is not None:
            code = Code.INPUT if event.stream is Stream.INPUT else Code.OUTPUT
            if data := streams[event.stream].feed(event.data):
                yield Event(event.time, code, data)
        elif event.code == Code.REDACTED:
            yield Event(event.time, Code.INPUT, event.data)
        elif event.code == Code.RESIZE and SIZE.fullmatch(event.data):
            yield event


def write_lines(reader: Reader, out: BinaryIO) -> None:
    """The recording as it was written, decrypted. Raises RecordingError, OSError."""
    line = reader.header_line
    while line is not None:
        out.write(line)
        line = reader.read_line()


def write_text(reader: Reader, out: BinaryIO, make_terminal: MakeTerminal) -> None:
    """What was to be read on the screen: a line each with its time, all printable. Raises RecordingError, OSError."""
    for line in rendered(reader, make_terminal):
        out.write(f"{format_position(line.time)}  {printable(line.text)}\n".encode())


def write_asciicast(reader: Reader, out: BinaryIO) -> None:
    """asciicast v2 of output that went through the filter, in valid Unicode. Raises RecordingError, OSError."""
    header = reader.header
    fields: dict[str, object] = {
        "version": 2,
        "width": header.columns,
        "height": header.rows,
        "timestamp": header.timestamp,
        "title": printable(f"{header.user} {header.address}"),
        "env": {name: printable(value) for name, value in header.env.items()},
    }
    if header.command is not None:
        fields["command"] = printable(header.command)
    out.write(json.dumps(fields).encode("ascii") + b"\n")
    for event in standard(reader, Filter):
        out.write(encode_text(event.time, event.code, text_of(event.data)))


def write_typescript(
    reader: Reader, out: BinaryIO, typed: BinaryIO, timing: BinaryIO, passing: Callable[[], Passing]
) -> None:
    """What `script --log-out OUT --log-in TYPED --log-timing TIMING` would have written. RecordingError, OSError."""
    header = reader.header
    began = datetime.fromtimestamp(header.timestamp, UTC).isoformat(" ")
    first = f"Script started on {began}\n".encode("ascii")  # which scriptreplay leaves out
    out.write(first)
    typed.write(first)
    for name, value in _facts(header, began):
        timing.write(f"H 0.000000 {name} {printable(value)}\n".encode("utf-8", "backslashreplace"))
    before, seconds = 0.0, 0.0
    for event in standard(reader, passing):
        pause = max(event.time - before, 0.0)
        before = max(event.time, before)
        seconds += pause
        if event.code == Code.RESIZE:
            columns, _, rows = event.data.decode("ascii").partition("x")
            timing.write(f"S {pause:.6f} SIGWINCH ROWS={rows} COLS={columns}\n".encode("ascii"))
        else:
            letter, file = ("I", typed) if event.code == Code.INPUT else ("O", out)
            file.write(event.data)
            timing.write(f"{letter} {pause:.6f} {len(event.data)}\n".encode("ascii"))
    timing.write(f"H 0.000000 DURATION {seconds:.6f}\n".encode("ascii"))


def _facts(header: Header, began: str) -> list[tuple[str, str]]:
    facts = [("START_TIME", began)]
    if header.terminal:
        facts += [("TERM", header.env.get("TERM", "")), ("COLUMNS", f"{header.columns}"), ("LINES", f"{header.rows}")]
    if header.command is not None:
        facts.append(("COMMAND", header.command))
    return facts
