"""The way into the database: over a spool on disk, in order, as soon as the database takes it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import orjson
from sqlalchemy.exc import DataError, IntegrityError

from bastion.audit.events import Entry
from bastion.audit.progress import Mark, spool_folder, under_way
from bastion.audit.sinks import EventTable
from bastion.audit.spool import Spool
from bastion.audit.thread import Thread

BATCH = 500  # events a transaction
ATTEMPT = 5.0  # seconds that one may take
LINGER = 0.03  # seconds that the first event waits for others: a transaction costs more than an event
BACKOFF = 0.1, 1.0  # seconds, first and longest
SPOOL_LIMIT = 256 << 20  # bytes that may wait on disk
CLOSE_LIMIT = 5.0  # seconds for what is left at the end, while the database takes it
_logger = logging.getLogger(__name__)


class Delivery:
    """A sink: write() returns when the events are in the spool; a task of its own brings them into the table.

    At the start, that task first brings what the log has and the table has not. `changed` is called with the error when
    the database is away, and with None when it is back; `caught_up` with how many entries had no row at the start, and
    how many of them were in the spool once. What the database will never take (a row that violates its rules) is
    dropped and counted, so that nothing waits behind it for ever.
    """

    name = "database events"

    def __init__(
        self,
        bastion_id: str,
        table: EventTable,
        state_folder: Path,
        changed: Callable[["Delivery", Exception | None], None],
        caught_up: Callable[["Delivery", int, int], None],
    ) -> None:
        self.table = table
        self.dropped = 0  # since it last worked
        self._bastion_id = bastion_id
        self._caught_up = caught_up
        self._mark = Mark(state_folder)
        self.error: Exception | None = None  # why the database takes nothing at the moment
        self._changed = changed
        self._spool = Spool(spool_folder(state_folder), SPOOL_LIMIT)
        self._state_folder = state_folder
        self._thread = Thread(self.name)
        self._more = asyncio.Event()
        self._settled = asyncio.Event()
        self._stuck = asyncio.Event()
        self._writing = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find what an earlier process left. OSError."""
        await self._thread.call(self._open)

    def _open(self) -> None:
        self._spool.open()
        self._left = under_way(self._state_folder)
        self._mark.open()

    def start(self, behind: Callable[[int], Iterator[bytes]]) -> None:
        """Begin to deliver; `behind` has the log's lines behind an entry of this number, up to where it is now."""
        self._task = asyncio.create_task(self._run(behind), name="audit delivery")

    async def write(self, batch: Sequence[Entry]) -> int:
        """OSError when the spool can not be written, or is full."""
        lines = [entry.line.encode() for entry in batch]
        self._settled.clear()
        self._writing += 1
        try:
            await self._thread.call(partial(self._append, lines, int(str(batch[-1].fields["seq"]))))
        finally:
            self._writing -= 1
            self._more.set()
        return len(batch)

    def _append(self, lines: Sequence[bytes], last: int) -> None:
        self._spool.append(lines)
        self._mark.set(last)

    async def settle(self) -> bool:
        """Wait until the table has all that was written; False as soon as the database takes nothing."""
        waits = {asyncio.create_task(event.wait()) for event in (self._settled, self._stuck)}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._settled.is_set()

    async def close(self) -> None:
        """What is not delivered by now, the next process delivers."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await self.settle()
            while not self._task.done():
                self._task.cancel()  # again, where a driver is still trying to say good-bye to a dead server
                await asyncio.wait({self._task}, timeout=1)
        self._thread.end(self._close)

    def _close(self) -> None:
        self._spool.close()
        self._mark.close()

    async def _run(self, behind: Callable[[int], Iterator[bytes]]) -> None:
        await self._until_done(partial(self._catch_up, behind))
        while True:
            await self._until_done(self._empty)
            if not self._writing and not self._more.is_set():
                self._settled.set()
            await self._more.wait()
            await asyncio.sleep(LINGER)

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        delay = BACKOFF[0]
        while True:
            try:
                return await work()
            except Exception as error:
                self._failed(error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, BACKOFF[1])

    async def _catch_up(self, behind: Callable[[int], Iterator[bytes]]) -> None:
        """What the log has behind the last row: a crash came before the spool had it, or somebody removed the rows.

        What is in the spool is among it, and keeps its place; it is not written again from there.
        """
        async with asyncio.timeout(ATTEMPT):
            last = await self.table.last(self._bastion_id)
        lines, late, removed = behind(last), 0, 0
        while batch := await self._thread.call(lambda: list(islice(lines, BATCH))):
            await self._store(batch)
            for fields in map(orjson.loads, batch):
                if fields["id"] not in self._left.waiting:
                    late += 1
                    removed += fields["seq"] <= self._left.put
        if late:
            self._caught_up(self, late, removed)

    async def _empty(self) -> None:
        """Bring over what is in the spool."""
        while True:
            self._more.clear()
            lines = await self._thread.call(partial(self._spool.first, BATCH))
            if not lines:
                return
            await self._store(lines)
            await self._thread.call(partial(self._spool.remove, lines))

    async def _store(self, lines: Sequence[bytes]) -> None:
        """All but those that the database will never take."""
        entries = [Entry(orjson.loads(line), line.decode()) for line in lines]
        try:
            async with asyncio.timeout(ATTEMPT):
                await self.table.write(entries)
        except _REFUSED as error:
            if len(lines) > 1:
                for line in lines:  # so that one bad row takes no other with it
                    await self._store([line])
                return
            self.dropped += 1
            self._failed(error)
        else:
            self._worked()

    def _failed(self, error: Exception) -> None:
        first, self.error = self.error is None, error
        self._stuck.set()
        if first:
            self._changed(self, error)

    def _worked(self) -> None:
        if self.error is not None:
            self.error = None
            self._stuck.clear()
            self._changed(self, None)
            self.dropped = 0


_REFUSED = DataError, IntegrityError
