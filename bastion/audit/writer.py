"""One owned task that writes what it is given, in order and in batches, and outlives whatever it writes to."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

BATCH = 500  # items a write
BACKOFF = 0.1, 1.0  # seconds, first and longest
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T
    weight: int
    keep: bool
    done: "asyncio.Future[Exception | None]"


class Writer(Generic[T]):
    """`write` gets the items in order, and returns how many of the first of them it stored; it raises if none.

    An item that is kept is tried until it is stored; one that is not fails at once, and its future has the
    error. A batch that fails is tried again item by item, so that one bad item takes no other with it. What does
    not fit into `capacity` (the sum of the weights) is dropped and counted. `changed` is called with the error
    when writing begins to fail, and with None when it works again.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], Awaitable[int]],
        *,
        capacity: int,
        attempt: float,
        linger: float = 0,
        changed: Callable[["Writer[T]", Exception | None], None],
    ) -> None:
        self.name = name
        self.dropped = 0  # since it last worked
        self._write = write
        self._capacity = capacity
        self._attempt = attempt  # seconds that one write may take
        self._linger = linger  # seconds that the first of a batch waits for more: a write costs more than an item
        self._changed = changed
        self._items: deque[_Item[T]] = deque()
        self._weight = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._error: Exception | None = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"audit {name}")

    def put(self, value: T, *, keep: bool, weight: int = 1) -> "asyncio.Future[Exception | None]":
        """Hand `value` over; the future's result is None once it is stored, or why it never will be."""
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_result(RuntimeError(f"{self.name} is closed"))
            return done
        if self._weight + weight > self._capacity:
            if not self.dropped:
                log.error("%s takes no more: what comes now is lost there", self.name)
            self.dropped += 1
            done.set_result(RuntimeError(f"{self.name} takes no more"))
            return done
        self._items.append(_Item(value, weight, keep, done))
        self._weight += weight
        self._empty.clear()
        self._wake.set()
        return done

    @property
    def error(self) -> Exception | None:
        """Why writing fails at the moment."""
        return self._error

    async def close(self, limit: float) -> int:
        """Write what is left, for at most `limit` seconds, and end the task. Returns how many were not written."""
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._empty.wait()
        while not self._task.done():
            self._task.cancel()  # again, where a driver is still trying to say good-bye to a dead server
            await asyncio.wait({self._task}, timeout=1)
        lost = len(self._items)
        while self._items:
            self._remove(RuntimeError(f"{self.name} is closed"))
        return lost

    def _remove(self, error: Exception | None) -> None:
        item = self._items.popleft()
        self._weight -= item.weight
        if not item.done.done():
            item.done.set_result(error)

    async def _run(self) -> None:
        size, delay = BATCH, BACKOFF[0]
        while True:
            while self._items and self._items[0].done.done():
                self._remove(None)  # whoever wanted it has given up
            if not self._items:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()
            if self._linger and len(self._items) < BATCH and not self._closed:
                await asyncio.sleep(self._linger)
            batch = list(islice(self._items, size))
            try:
                async with asyncio.timeout(self._attempt):
                    stored = await self._write([item.value for item in batch])
            except Exception as error:
                if len(batch) > 1:
                    size = 1
                    continue
                self._failed(error)
                if not batch[0].keep:
                    self._remove(error)
                    continue
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF[1])
            else:
                for _ in range(stored):
                    self._remove(None)
                size, delay = BATCH, BACKOFF[0]
                self._worked()

    def _failed(self, error: Exception) -> None:
        first, self._error = self._error is None, error
        if first:
            self._changed(self, error)

    def _worked(self) -> None:
        if self._error is not None or self.dropped:
            self._error = None
            self._changed(self, None)
            self.dropped = 0
