"""Threads for calls that block: few, with an end to how many callers may wait for them, and for how long."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bastion.auth.refusals import unavailable

T = TypeVar("T")


class Workers:
    """`threads` calls at a time, `queue` more that wait; what is beyond that is turned away at once."""

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"auth-{name}")
        self._free = threading.Semaphore(threads + queue)

    async def run(self, seconds: float, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Raises Unavailable: no room, closed, or not done within `seconds`.

        A call that nobody waits for any more is dropped from the queue; one that runs goes on to its own end.
        """
        if not self._free.acquire(blocking=False):
            raise unavailable(f"{self._name}: too many sign-ins are waiting already")
        try:
            job = self._pool.submit(call)
        except RuntimeError:
            self._free.release()
            raise unavailable(f"{self._name}: shutting down") from None
        job.add_done_callback(lambda _: self._free.release())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(job)
        except TimeoutError:
            raise unavailable(f"{self._name}: no answer within {seconds:g} s") from None

    async def close(self) -> None:
        """Take no more calls, and return when the last one is done."""
        await asyncio.to_thread(self._pool.shutdown)
