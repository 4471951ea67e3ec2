"""One recording: what `write` returns is on file, and only that may be passed on.

On file means that write(2) has returned: it survives the end of the bastion by kill -9. It reaches the disk when the
recording is closed.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Stream
from bastion.recording.asciicast import Code, StreamEncoder, encode_text, split_text, text_of
from bastion.recording.redaction import Redactor, Told
from bastion.recording.writers import Job, Writers

T = TypeVar("T")

SMALL = 4096  # bytes that are encoded on the event loop


@dataclass(frozen=True, slots=True)
class Summary:
    """What was recorded. `streams` is ready for the audit log: `{"o": {"bytes": 12, "sha256": "…"}, …}`.

    The SHA-256 of a terminal's input is None: typed passwords could be guessed from it.
    """

    path: Path
    streams: Mapping[str, Mapping[str, int | str | None]]
    failure: str | None  # why the recording is not complete


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file that has its header: opened for appending, `size` bytes long."""

    path: Path
    descriptor: int
    size: int


def describe(error: Exception) -> str:
    """For the log: `No space left on device (ENOSPC)`."""
    if isinstance(error, OSError) and error.errno:
        return f"{error.strerror} ({errno.errorcode.get(error.errno, error.errno)})"
    return repr(error)


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


class _Tape:
    """Encodes, hashes and writes: in the writer thread, or on the event loop while there is no job for that."""

    def __init__(self, file: RecordedFile | None, *, terminal: bool, strict: bool, max_bytes: int) -> None:
        self.file = file
        self.size = file.size if file else 0
        self.terminal = terminal
        self.strict = strict
        self.max_bytes = max_bytes
        self.failure: str | None = None
        self.holding = False
        self.tracks = {stream: _Track(stream, secret=terminal and stream is Stream.INPUT) for stream in Stream}
        self.redactor = Redactor()

    def perform(self, jobs: list[Job]) -> None:
        lines: list[bytes] = []
        try:
            if self.failure is None or not self.strict:
                for job in jobs:
                    job.result = job.work(lines)
                if self.failure is None:
                    self._append(lines)
        except OSError as error:
            self.failure = describe(error)
        except Exception as error:  # a defect of ours: nothing may go on unrecorded
            self.failure, self.strict = describe(error), True
        if self.failure is not None and self.strict:
            for job in jobs:
                job.error = self.refusal()
        self.holding = any(track.held for track in self.tracks.values())

    def attempt(self, work: Callable[[list[bytes]], T], lines: list[bytes]) -> T | None:
        """Do `work` that adds to `lines`; None where the recording has failed, as the next job will say."""
        if self.failure is not None and self.strict:
            return None
        try:
            return work(lines)
        except Exception as error:  # a defect of ours: nothing may go on unrecorded
            self.failure, self.strict = describe(error), True
            return None
        finally:
            self.holding = any(track.held for track in self.tracks.values())

    def refusal(self) -> Refusal:
        path = self.file.path if self.file else "none"
        return Refusal(
            Reason.RECORDING_FAILED,
            "This session can no longer be recorded, so it was ended. Please tell the administrators of this bastion.",
            f"recording {path}: {self.failure}; recording.folder must be there, writable, and have free space",
        )

    def take(self, now: float, chunks: list[Chunk], lines: list[bytes]) -> list[Chunk]:
        """The work of `Recorder.write`."""
        passed = [(stream, self._take(now, stream, data, lines)) for stream, data in chunks]
        return [chunk for chunk in passed if chunk[1]]

    def flush(self, now: float, lines: list[bytes]) -> list[Chunk]:
        released: list[Chunk] = []
        for stream, track in self.tracks.items():
            if track.held:
                data, track.held = track.held, b""
                self._record(now, stream, text_of(data), lines)
                track.passed_on(data)
                released.append((stream, data))
        return released

    def resize(self, now: float, columns: int, rows: int, lines: list[bytes]) -> None:
        lines.append(encode_text(now, Code.RESIZE, f"{columns}x{rows}"))

    def end(self, now: float, how: str, lines: list[bytes]) -> None:
        self.flush(now, lines)
        self._tell(now, self.redactor.finish(), lines)
        lines.append(encode_text(now, Code.END, how))

    def _take(self, now: float, stream: Stream, data: bytes, lines: list[bytes]) -> bytes:
        """Returns what may be passed on."""
        track = self.tracks[stream]
        if track.held:
            data, track.held = track.held + data, b""
        if not data:
            return data
        room = self.max_bytes - track.bytes
        if self.failure is not None:
            pass
        elif track.truncated:
            if stream is not Stream.INPUT and self.redactor.watching:
                self._tell(now, self.redactor.output(now, text_of(data)), lines)
        elif len(data) > room:
            self._truncate(now, stream, data[:room], lines)
        elif self.terminal and stream is Stream.INPUT:
            self._record(now, stream, text_of(data), lines)  # the redactor puts split characters together
        elif self.terminal:
            text, track.held = split_text(data)
            self._record(now, stream, text, lines)
            if track.held:
                data = data[: -len(track.held)]
        else:
            lines.append(track.encoder.encode(now, data))
        track.passed_on(data)
        return data

    def _truncate(self, now: float, stream: Stream, data: bytes, lines: list[bytes]) -> None:
        if data and self.terminal:
            self._record(now, stream, text_of(data), lines)
        elif data:
            lines.append(self.tracks[stream].encoder.encode(now, data))
        if stream is Stream.INPUT:
            self._tell(now, self.redactor.finish(), lines)
        lines.append(encode_text(now, Code.TRUNCATED, stream))
        self.tracks[stream].truncated = True

    def _record(self, now: float, stream: Stream, text: str, lines: list[bytes]) -> None:
        """Text of a terminal."""
        if not text:
            return
        if stream is Stream.INPUT:
            self._tell(now, self.redactor.input(now, text), lines)
        else:
            lines.append(encode_text(now, stream, text))
            self._tell(now, self.redactor.output(now, text), lines)

    def _tell(self, now: float, told: list[Told], lines: list[bytes]) -> None:
        lines.extend(encode_text(now, code, text) for code, text in told)

    def _append(self, lines: list[bytes]) -> None:
        """Raises OSError; the file then ends with the last whole line."""
        assert self.file is not None  # there is a failure otherwise
        if not lines:
            return
        data = memoryview(b"".join(lines))
        if os.fstat(self.file.descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "The file was deleted")
        written = 0
        try:
            while written < len(data):
                written += os.write(self.file.descriptor, data[written:])
        except OSError:
            with contextlib.suppress(OSError):  # a line without its end is what readers expect after a crash
                os.ftruncate(self.file.descriptor, self.size)
            raise
        self.size += written


class Recorder:
    """Writes one recording; made by RecordingStore.open. May be used by several tasks at once.

    Unless the configuration says best_effort, all methods but close raise Refusal (RECORDING_FAILED) when something
    could not be written: nothing of it may be passed on, and the session has to end. With best_effort `failure` says
    what went wrong, and from then on nothing more is recorded.
    """

    def __init__(
        self,
        writers: Writers,
        path: Path,
        file: RecordedFile | None,
        *,
        terminal: bool,
        strict: bool,
        max_bytes: int,
        failure: str | None = None,
    ) -> None:
        self.path = path
        self._writers = writers
        self._queue = writers.pin()
        self._tape = _Tape(file, terminal=terminal, strict=strict, max_bytes=max_bytes)
        self._tape.failure = failure
        self._start = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[Summary] | None = None
        self._under_way = 0  # jobs that the writer thread may still work on

    @property
    def failure(self) -> str | None:
        """Why the recording is not complete."""
        return self._tape.failure

    @property
    def holding(self) -> bool:
        """Whether up to 3 bytes of a terminal's output wait for the rest of a character; `flush` releases them."""
        return self._tape.holding

    async def write(self, chunks: list[Chunk]) -> list[Chunk]:
        """Returns what is on file now and may be passed on.

        If it is cancelled, the chunks are still recorded, in their order.
        """
        take = partial(self._tape.take, self._now(), chunks)
        if self._under_way or self._closing is not None or sum(len(data) for _, data in chunks) > SMALL:
            return await self._do(take)
        # No job is under way, so the tape is ours: a key is encoded here, and one that adds nothing to the file (its
        # text is withheld, as that before it) does not wait for the thread, which would take longer than all the rest.
        lines: list[bytes] = []
        passed = self._tape.attempt(take, lines)
        if passed is not None and not lines:
            return passed

        def write(into: list[bytes]) -> list[Chunk]:
            into.extend(lines)
            return passed or []

        return await self._do(write)

    async def flush(self) -> list[Chunk]:
        """Records the bytes of incomplete characters as they are, and returns them to be passed on."""
        return await self._do(partial(self._tape.flush, self._now()))

    async def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size, in characters."""
        await self._do(partial(self._tape.resize, self._now(), columns, rows))

    async def close(self, exit: int | str | None = None) -> Summary:  # noqa: A002 - the word of the field
        """Ends the recording with the exit status or a word on how it ended, and brings it to the disk.

        Raises nothing: `Summary.failure` says what went wrong. Closing again gives the same summary.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close("" if exit is None else str(exit)))
        return await asyncio.shield(self._closing)

    async def _close(self, how: str) -> Summary:
        tape = self._tape
        with contextlib.suppress(Refusal):  # tape.failure says it
            await self._submit(partial(tape.end, self._now(), how))
        if tape.file is not None:
            try:
                await self._loop.run_in_executor(self._writers.files, _finish, tape.file)
            except OSError as error:
                tape.failure = tape.failure or describe(error)
        return Summary(
            path=self.path,
            streams={
                str(stream): {"bytes": track.bytes, "sha256": track.sha256.hexdigest() if track.sha256 else None}
                for stream, track in tape.tracks.items()
            },
            failure=tape.failure,
        )

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _do(self, work: Callable[[list[bytes]], T]) -> asyncio.Future[T]:
        if self._closing is not None:
            raise Refusal(Reason.RECORDING_FAILED, "This session has ended.", f"recording {self.path} is closed")
        return self._submit(work)

    def _submit(self, work: Callable[[list[bytes]], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._writers.submit(self._queue, Job(self._tape, work, future, self._settled))
        self._under_way += 1
        return future

    def _settled(self) -> None:
        self._under_way -= 1


def _finish(file: RecordedFile) -> None:
    try:
        os.fsync(file.descriptor)
    finally:
        os.close(file.descriptor)
    folder = os.open(file.path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the file's name, too
    finally:
        os.close(folder)
