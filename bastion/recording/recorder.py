"""One recording: what `write` gives back is on file, and only that may be passed on.

On file means that write(2) has returned: it survives the end of the bastion by kill -9. It reaches the disk when the
recording is closed.

Small writes, such as that of a key, are done on the event loop: they go to the page cache, which takes some
microseconds, and handing them to a thread and back takes ten times as long. As soon as one was slow (writers.SLOW), all
writes of all recordings are left to the threads until none has been slow for a while. So a slow disk holds the event
loop up for one write, then the sessions that write to it only. What remains: a disk that comes to a stand while such
a write is under way holds it up until it moves again, since Linux lets nobody take a write(2) to a file back.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bastion.errors import Reason, Refusal
from bastion.model import Chunk
from bastion.recording.chain import End
from bastion.recording.tape import Tape
from bastion.recording.transcript import Lines, Transcript
from bastion.recording.writers import Job, Writers

T = TypeVar("T")

SMALL = 64 << 10  # bytes that are written on the event loop


@dataclass(frozen=True, slots=True)
class Summary:
    """What was recorded; `streams` as in Transcript, `end` is where the file ends."""

    path: Path
    streams: Mapping[str, Mapping[str, int | str | None]]
    end: End | None  # None: there is no file
    failure: str | None  # why the recording is not complete


def describe(error: Exception) -> str:
    """For the log: `No space left on device (ENOSPC)`."""
    if isinstance(error, OSError) and error.errno:
        return f"{error.strerror} ({errno.errorcode.get(error.errno, error.errno)})"
    return repr(error)


class Recorder:
    """Writes one recording; made by RecordingStore.open. May be used by several tasks at once.

    `write`, `flush` and `resize` can be awaited, and are done at once where there is little to write and the disk is as
    quick as it should be. What they are given is recorded in its order, also where nobody waits for them any more.

    Unless the configuration says best_effort, they fail with Refusal (RECORDING_FAILED) when something could not be
    written: nothing of it may be passed on, and the session has to end. With best_effort `failure` says what went
    wrong, and from then on nothing more is recorded.
    """

    def __init__(
        self,
        writers: Writers,
        path: Path,
        tape: Tape | None,
        *,
        terminal: bool,
        strict: bool,
        max_bytes: int,
        closed: Callable[[Path], None],
        failure: str | None = None,
    ) -> None:
        self.path = path
        self._closed = closed
        self.failure = failure  # why the recording is not complete
        self._strict = strict
        self._tape = tape
        self._transcript = Transcript(terminal=terminal, max_bytes=max_bytes)
        self._transcript.told = failure is None
        self._writers = writers
        self._writer = writers.pin()
        self._start = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[Summary] | None = None
        self._under_way = 0  # jobs that the writer thread may still work on

    @property
    def holding(self) -> bool:
        """Whether up to 3 bytes of a terminal's output wait for the rest of a character; `flush` releases them."""
        return self._transcript.holding

    @property
    def seconds(self) -> float:
        """Into the recording."""
        return time.monotonic() - self._start

    def write(self, chunks: list[Chunk]) -> asyncio.Future[list[Chunk]]:
        """Gives back what is on file now and may be passed on."""
        return self._record(self._transcript.take, chunks)

    def flush(self) -> asyncio.Future[list[Chunk]]:
        """Records the bytes of incomplete characters as they are, and gives them back to be passed on."""
        return self._record(self._transcript.flush)

    def resize(self, columns: int, rows: int) -> asyncio.Future[None]:
        """The terminal has another size, in characters."""
        return self._record(self._transcript.resize, columns, rows)

    async def close(self, exit: int | str | None = None) -> Summary:  # noqa: A002 - the word of the field
        """Ends the recording with the exit status or a word on how it ended, and brings it to the disk.

        Raises nothing: `Summary.failure` says what went wrong. Closing again gives the same summary.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close("" if exit is None else str(exit)))
        return await asyncio.shield(self._closing)

    async def _close(self, how: str) -> Summary:
        with contextlib.suppress(Refusal):  # self.failure says it
            await self._tell(self._transcript.end, how)
        if self._tape is not None:
            try:
                finish = partial(self._tape.finish, whole=self.failure is None)
                await self._loop.run_in_executor(self._writers.files, finish)
            except OSError as error:
                self.failure = self.failure or describe(error)
            self._closed(self.path)
        end = self._tape.chain.end if self._tape is not None else None
        return Summary(self.path, self._transcript.streams(), end, self.failure)

    def _record(self, tell: Callable[..., T], *what: Any) -> asyncio.Future[T]:
        if self._closing is not None:
            raise Refusal(Reason.RECORDING_FAILED, "This session has ended.", f"recording {self.path} is closed")
        return self._tell(tell, *what)

    def _tell(self, tell: Callable[..., T], *what: Any) -> asyncio.Future[T]:
        """One of the transcript's methods: what it gives back is the result once its lines are on file."""
        job = Job(self, self._loop.create_future())
        try:
            if self.failure is None or not self._strict:
                job.result = tell(time.monotonic() - self._start, *what, job.lines)
        except Exception as error:  # a defect of ours: nothing may go on unrecorded
            self._strict = True
            self._fail(error)
        size = sum(map(len, job.lines))
        if not self._under_way and (size == 0 or (size <= SMALL and self._writers.disk_is_quick)):
            self.perform([job])
            job.settle()
        else:
            self._writers.submit(self._writer, job)
            self._under_way += 1
        return job.future

    def settled(self) -> None:
        self._under_way -= 1

    def perform(self, jobs: list[Job]) -> None:
        """In the writer thread, or on the event loop while that has nothing of this recording to do."""
        lines = [line for job in jobs for line in job.lines]
        if lines and self._tape is not None and self.failure is None:
            try:
                self._append(self._tape, lines)
            except OSError as error:
                self._fail(error)
            except Exception as error:  # a defect of ours
                self._strict = True
                self._fail(error)
        if self.failure is not None and self._strict:
            for job in jobs:
                job.error = self._refusal()

    def _append(self, tape: Tape, lines: Lines) -> None:
        began = time.monotonic()
        tape.append(lines)
        self._writers.took(time.monotonic() - began)

    def _fail(self, error: Exception) -> None:
        self.failure = describe(error)
        self._transcript.told = False

    def _refusal(self) -> Refusal:
        return Refusal(
            Reason.RECORDING_FAILED,
            "This session can no longer be recorded, so it was ended. Please tell the administrators of this bastion.",
            f"recording {self.path}: {self.failure}; recording.folder must be there, writable, and have free space",
        )
