"""What is told of a session in its recording, line by line. Pure: no clock, no file."""

import hashlib
from collections.abc import Mapping

from bastion.model import Chunk, Stream
from bastion.recording.asciicast import Code, StreamEncoder, encode_text, split_text, text_of
from bastion.recording.redaction import Redactor, Told

Lines = list[bytes]


class _Track:
    """One stream: what was passed on of it."""

    def __init__(self, stream: Stream, *, secret: bool) -> None:
        self.bytes = 0
        self.sha256 = None if secret else hashlib.sha256()
        self.held = b""  # an incomplete character that waits for its rest
        self.truncated = False
        self.encoder = StreamEncoder(stream)

    def passed_on(self, data: bytes) -> None:
        self.bytes += len(data)
        if self.sha256 is not None:
            self.sha256.update(data)


class Transcript:
    """Makes lines of what passes; `now` is in seconds since the start. Each method adds its lines to `lines`.

    Beyond `max_bytes` a stream is counted and hashed only.
    """

    def __init__(self, *, terminal: bool, max_bytes: int) -> None:
        self.holding = False  # up to 3 bytes of a terminal's output wait for the rest of a character
        self.told = True  # False: count and hash only, there is nothing to tell it to any more
        self._terminal = terminal
        self._max_bytes = max_bytes
        self._tracks = {stream: _Track(stream, secret=terminal and stream is Stream.INPUT) for stream in Stream}
        self._redactor = Redactor()

    def take(self, now: float, chunks: list[Chunk], lines: Lines) -> list[Chunk]:
        """Returns what of the chunks may be passed on once the lines are on file."""
        passed = []
        for stream, data in chunks:
            if data := self._take(now, stream, data, lines):
                passed.append((stream, data))
        return passed

    def flush(self, now: float, lines: Lines) -> list[Chunk]:
        """Returns the bytes of incomplete characters."""
        released: list[Chunk] = []
        for stream, track in self._tracks.items():
            if track.held:
                data, track.held = track.held, b""
                self._record(now, stream, text_of(data), lines)
                track.passed_on(data)
                released.append((stream, data))
        self.holding = False
        return released

    def resize(self, now: float, columns: int, rows: int, lines: Lines) -> None:
        lines.append(encode_text(now, Code.RESIZE, f"{columns}x{rows}"))

    def end(self, now: float, how: str, lines: Lines) -> None:
        self.flush(now, lines)
        self._tell(now, self._redactor.finish(), lines)
        lines.append(encode_text(now, Code.END, how))

    def streams(self) -> Mapping[str, Mapping[str, int | str | None]]:
        """What was passed on, ready for the audit log: `{"o": {"bytes": 12, "sha256": "…"}, …}`.

        The SHA-256 of a terminal's input is None: typed passwords could be guessed from it.
        """
        return {
            str(stream): {"bytes": track.bytes, "sha256": track.sha256.hexdigest() if track.sha256 else None}
            for stream, track in self._tracks.items()
        }

    def _take(self, now: float, stream: Stream, data: bytes, lines: Lines) -> bytes:
        track = self._tracks[stream]
        if track.held:
            data, track.held = track.held + data, b""
            self.holding = False
        if not data:
            return data
        if not self.told:
            pass
        elif track.truncated:
            if stream is not Stream.INPUT and self._redactor.watching:
                self._tell(now, self._redactor.output(now, text_of(data)), lines)
        elif len(data) > (room := self._max_bytes - track.bytes):
            self._truncate(now, stream, data[:room], lines)
        elif not self._terminal:
            lines.append(track.encoder.encode(now, data))
        elif stream is Stream.INPUT:
            self._record(now, stream, text_of(data), lines)  # the redactor puts split characters together
        else:
            text, track.held = split_text(data)
            self._record(now, stream, text, lines)
            if track.held:
                self.holding = True
                data = data[: -len(track.held)]
        track.passed_on(data)
        return data

    def _truncate(self, now: float, stream: Stream, data: bytes, lines: Lines) -> None:
        if data and self._terminal:
            self._record(now, stream, text_of(data), lines)
        elif data:
            lines.append(self._tracks[stream].encoder.encode(now, data))
        if stream is Stream.INPUT:
            self._tell(now, self._redactor.finish(), lines)
        lines.append(encode_text(now, Code.TRUNCATED, stream))
        self._tracks[stream].truncated = True

    def _record(self, now: float, stream: Stream, text: str, lines: Lines) -> None:
        """Text of a terminal."""
        if not text:
            return
        if stream is Stream.INPUT:
            self._tell(now, self._redactor.input(now, text), lines)
        else:
            lines.append(encode_text(now, stream, text))
            self._tell(now, self._redactor.output(now, text), lines)

    def _tell(self, now: float, told: list[Told], lines: Lines) -> None:
        for code, text in told:
            lines.append(encode_text(now, code, text))
