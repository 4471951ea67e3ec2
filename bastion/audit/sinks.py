"""Where audit events go. Each sink writes for one Writer, and fails with what a person can mend."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import insert_new
from bastion.audit.events import Entry
from bastion.audit.tables import events

T = TypeVar("T")


class _Thread:
    """A thread of its own for calls that may block for ever: a daemon, so that a stuck one can not hold up the exit."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while call := self._calls.get():
            call()

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`. When cancelled before the thread got to it, it is not called."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may itself be None

        def run() -> None:
            if future.done():
                return
            try:
                result, error = function(), None
            except OSError as raised:
                result, error = None, raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._calls.put(run)
        return await future

    def end(self, last: Callable[[], None] = lambda: None) -> None:
        """Call `last` after all that was given before, and end."""
        self._calls.put(last)
        self._calls.put(None)


class StandardOutput:
    """One line an event on file descriptor 1."""

    name = "audit.stdout"

    def __init__(self) -> None:
        self._thread = _Thread(self.name)
        self._torn = False  # the last line was cut short

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._append(1, batch))

    def _append(self, descriptor: int, batch: Sequence[Entry]) -> int:
        """Write whole lines; after a write that was cut short, first end the torn line, which no reader takes for JSON.

        Truncating instead would make followers read the file anew, and is refused on an append-only file.
        """
        lines = [entry.line.encode("ascii") + b"\n" for entry in batch]
        pending = memoryview(b"\n" * self._torn + b"".join(lines))
        written = 0
        try:
            while written < len(pending):
                written += os.write(descriptor, pending[written:])
        except OSError:
            if written:
                self._torn = pending[written - 1] != ord("\n")
            written -= len(pending) - sum(map(len, lines))
            stored = 0
            while stored < len(lines) and written >= len(lines[stored]):
                written -= len(lines[stored])
                stored += 1
            if not stored:
                raise
            return stored
        self._torn = False
        return len(lines)

    async def close(self) -> None:
        self._thread.end()


class LineFile(StandardOutput):
    """One line an event, appended to a file (0600 when it is made here).

    When somebody moved the file away (logrotate) or removed it, it is made again; nothing is written to where
    nobody can read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"audit.file {path}"
        self._descriptor: int | None = None
        super().__init__()

    async def open(self) -> None:
        """Make the file and its folder where they are missing. OSError."""
        await self._thread.call(self._make)

    def _make(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._current()

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._append(self._current(), batch))

    def _current(self) -> int:
        """A descriptor of the file that is at the path now."""
        if self._descriptor is not None:
            if self._same():
                return self._descriptor
            self._shut()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        return self._descriptor

    def _same(self) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def close(self) -> None:
        self._thread.end(self._shut)


class EventTable:
    """The `events` table."""

    name = "database events"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open(self) -> None:
        """The engine connects when it is first used."""

    async def write(self, batch: Sequence[Entry]) -> int:
        rows = [
            {column.name: entry.fields.get(column.name) for column in events.columns if not column.identity}
            | {"time": datetime.fromisoformat(str(entry.fields["time"])), "entry": entry.line}
            for entry in batch
        ]
        async with self._engine.begin() as connection:
            await connection.execute(insert_new(self._engine, events, "id"), rows)
        return len(batch)

    async def close(self) -> None:
        """Whoever made the engine disposes of it."""
