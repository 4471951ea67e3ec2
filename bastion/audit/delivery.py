"""The way into the database: over a spool on disk, in order, as soon as the database takes it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import orjson
from sqlalchemy.exc import DataError, IntegrityError

from bastion.audit.events import Entry
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

    `changed` is called with the error when the database is away, and with None when it is back. What the database
    will never take (a row that violates its rules) is dropped and counted, so that nothing waits behind it for ever.
    """

    name = "database events"

    def __init__(
        self, table: EventTable, folder: Path, changed: Callable[["Delivery", Exception | None], None]
    ) -> None:
        self.table = table
        self.dropped = 0  # since it last worked
        self.error: Exception | None = None  # why the database takes nothing at the moment
        self._changed = changed
        self._spool = Spool(folder, SPOOL_LIMIT)
        self._thread = Thread(self.name)
        self._more = asyncio.Event()
        self._settled = asyncio.Event()
        self._stuck = asyncio.Event()
        self._writing = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find what an earlier process left. OSError."""
        await self._thread.call(self._spool.open)

    def start(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.create_task(self._run(), name="audit delivery")

    async def write(self, batch: Sequence[Entry]) -> int:
        """OSError when the spool can not be written, or is full."""
        lines = [entry.line.encode() for entry in batch]
        self._settled.clear()
        self._writing += 1
        try:
            await self._thread.call(lambda: self._spool.append(lines))
        finally:
            self._writing -= 1
            self._more.set()
        return len(batch)

    async def settle(self) -> bool:
        """Wait until the table has all that was written; False as soon as the database takes nothing."""
        waits = {asyncio.create_task(event.wait()) for event in (self._settled, self._stuck)}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
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
        self._thread.end(self._spool.close)

    async def _run(self) -> None:
        size, delay = BATCH, BACKOFF[0]
        while True:
            self._more.clear()
            lines: list[bytes] = []
            try:
                lines = await self._thread.call(partial(self._spool.first, size))
                if lines:
                    stored = await self._deliver(lines)
                    await self._thread.call(partial(self._spool.remove, lines))
            except Exception as error:
                if len(lines) > 1 and isinstance(error, _REFUSED):
                    size = 1  # so that one bad row takes no other with it
                    continue
                self._failed(error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF[1])
                continue
            if lines:
                size, delay = BATCH, BACKOFF[0]
                if stored:
                    self._worked()
            elif not self._more.is_set():
                if not self._writing:
                    self._settled.set()
                await self._more.wait()
                await asyncio.sleep(LINGER)

    async def _deliver(self, lines: Sequence[bytes]) -> bool:
        """False where the database will never take the one line that there is."""
        entries = [Entry(orjson.loads(line), line.decode()) for line in lines]
        try:
            async with asyncio.timeout(ATTEMPT):
                await self.table.write(entries)
        except _REFUSED as error:
            if len(lines) > 1:
                raise
            self.dropped += 1
            self._failed(error)
            return False
        return True

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
