"""What passes between a client and a program, read for commands: beside the data path, never in its way."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from bastion.audit.events import Event
from bastion.audit.log import BoundLog
from bastion.commands.detector import Detector
from bastion.commands.script import Script, reads_script
from bastion.commands.terminal import mode_changes
from bastion.errors import Refusal
from bastion.model import Chunk, Command, Confidence, Stream, Terminal

QUEUE = 1 << 20  # bytes that wait to be read; what is more is skipped but for its end
SOON = 64 << 10  # bytes that are read at once
LINGER = 0.05  # seconds in which keys and their echo come together
WAITING = 1.1  # seconds after which it is asked whether a command is complete by now
SHARE = 4  # a session that took long to read has to wait for so many times as long
LONG = 0.01  # seconds that are long
FINISH_LIMIT = 5.0  # seconds that the last commands of a session may take
_logger = logging.getLogger(__name__)


class Reader(Protocol):
    """What finds the commands; all times in seconds into the recording."""

    @property
    def pending(self) -> bool: ...
    @property
    def waiting(self) -> bool: ...
    def input(self, at: float, data: bytes) -> None: ...
    def output(self, at: float, data: bytes) -> None: ...
    def resize(self, at: float, columns: int, rows: int) -> None: ...
    def lose(self) -> None: ...
    def take(self, at: float) -> list[Command]: ...
    def finish(self) -> list[Command]: ...


class _Nothing(Script):
    """A command without a terminal that is no shell: what it reads is data."""

    def input(self, at: float, data: bytes) -> None:
        """Is no command."""


class Observer:
    """Emits session.command. `seen` and `resized` take microseconds; the reading is done in `worker`, in `run()`.

    A defect of the reading harms no session: it is logged, and begun anew, with a `degraded` command next.
    """

    def __init__(
        self,
        log: BoundLog,
        seconds: Callable[[], float],
        worker: Executor,
        terminal: Terminal | None,
        command: str | None,
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._worker = worker
        self._terminal = terminal
        self._command = command
        self._reader = self._new_reader()
        self._queue: list[tuple[float, Chunk | Terminal]] = []
        self._size = 0
        self._lost = False
        self._wake = asyncio.Event()
        self._much: asyncio.Event | None = None  # while it is waited for
        self._job: asyncio.Future[None] | None = None
        self._found: list[Command] = []
        self._took = 0.0  # seconds of the processor for the last reading
        if command is not None:
            self._found.append(Command(command, Confidence.EXACT, 0.0))
            self._wake.set()

    def seen(self, chunk: Chunk) -> None:
        """This has passed."""
        stream, data = chunk
        if stream is Stream.ERROR:
            return
        at = self._seconds()
        if stream is Stream.OUTPUT and not self._queue and self._job is None and not self._reader.pending:
            self._guarded(lambda: self._reader.output(at, data))  # it waits there, or its end does
            return
        self._queue.append((at, chunk))
        self._size += len(data)
        self._wake.set()
        if self._much is not None and self._size > SOON:
            self._much.set()
        if self._size > QUEUE:
            self._skip()

    def resized(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._queue.append((self._seconds(), terminal))
        self._wake.set()

    async def run(self) -> None:
        """Read and emit, until cancelled. Raises Unavailable where the log can not be written."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAITING if self._reader.waiting else None):
                    await self._wake.wait()
            self._wake.clear()
            await self._linger()
            await self._read(finish=False)
            while self._found:
                await self._emit(self._found.pop(0))
            if self._took > LONG:
                await asyncio.sleep(min(1.0, SHARE * self._took))

    async def _linger(self) -> None:
        if self._size > SOON:
            return
        self._much = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._much.wait()
        self._much = None

    async def finish(self) -> None:
        """The session is over, and run() cancelled: emit what is left. What the log refuses is told to the operator."""
        try:
            async with asyncio.timeout(FINISH_LIMIT):
                if self._job is not None:
                    await self._job
                await self._read(finish=True)
                while self._found:
                    await self._emit(self._found.pop(0))
        except (Refusal, TimeoutError) as error:
            _logger.error("the last commands of a session are not in the log: %r", error)

    async def _emit(self, command: Command) -> None:
        await self._log.emit(
            Event.SESSION_COMMAND,
            content=command.content,
            confidence=command.confidence,
            at=round(command.at, 3),
            prompt=command.prompt,
            degraded=command.degraded,
        )

    async def _read(self, *, finish: bool) -> None:
        """In the worker; when this is cancelled, what it finds is found all the same."""
        batch, self._queue, self._size = self._queue, [], 0
        lost, self._lost = self._lost, False
        job = asyncio.get_running_loop().run_in_executor(
            self._worker, lambda: self._guarded(lambda: self._work(batch, lost=lost, finish=finish))
        )
        self._job = job

        def done(_: object) -> None:
            self._job = None

        job.add_done_callback(done)
        await asyncio.shield(job)

    def _work(self, batch: list[tuple[float, Chunk | Terminal]], *, lost: bool, finish: bool) -> None:
        reader, began = self._reader, time.thread_time()
        if lost:
            reader.lose()
        for at, happened in batch:
            if isinstance(happened, Terminal):
                reader.resize(at, happened.columns, happened.rows)
            elif happened[0] is Stream.INPUT:
                reader.input(at, happened[1])
            else:
                reader.output(at, happened[1])
        self._found.extend(reader.finish() if finish else reader.take(self._seconds()))
        self._took = time.thread_time() - began

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # a defect of ours: what is typed next is read again
            _logger.exception("reading the commands of a session failed; it is begun anew")
            self._reader = self._new_reader()
            self._reader.lose()

    def _skip(self) -> None:
        """Overload: what waits is given up, but for the end of the output and the modes that the rest has set."""
        self._lost = True
        modes = b""
        size: Terminal | None = None
        skipped = 0
        while skipped < len(self._queue) and self._size > SOON:
            _, happened = self._queue[skipped]
            skipped += 1
            if isinstance(happened, Terminal):
                size = happened
                continue
            self._size -= len(happened[1])
            if happened[0] is Stream.OUTPUT:
                modes += mode_changes(happened[1])
        at = self._seconds()
        kept: list[tuple[float, Chunk | Terminal]] = [] if size is None else [(at, size)]
        if modes:
            kept.append((at, (Stream.OUTPUT, modes)))
        self._queue[:skipped] = kept

    def _new_reader(self) -> Reader:
        if self._terminal is not None:
            return Detector(self._terminal.columns, self._terminal.rows)
        return Script() if reads_script(self._command) else _Nothing()
