"""The threads that write what takes long, or all while the disk is slow.

Each recording is pinned to one thread, so its jobs are done in the order they came; what has queued up meanwhile is
handed over together. An eventfd brings the results back, which took a third of the time of run_in_executor.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol

from bastion.errors import Reason, Refusal

THREADS = 4  # a disk that hangs under one recording holds up a quarter of the others

SLOW = 0.005  # seconds; a small write takes some microseconds
RELENT = 1.0  # seconds after the last slow write


class Sink(Protocol):
    def perform(self, jobs: list["Job"]) -> None:
        """Writes the lines, sets `error` of each job where that is not possible; never raises."""

    def settled(self) -> None:
        """On the event loop, for each job that a thread has done, also where nobody waits for it any more."""


@dataclass(eq=False, slots=True)
class Job:
    sink: Sink
    future: asyncio.Future[Any]
    lines: list[bytes] = field(default_factory=list)
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():
            return  # cancelled; what it had to write is written all the same
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


Queue = SimpleQueue[Job | None]


class Writers:
    """A pool of writer threads for the running event loop. `files` is for what takes long: creating, fsync."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: deque[Job] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(self._wakeup, self._settle)
        self._queues: list[Queue] = [SimpleQueue() for _ in range(THREADS)]
        self._threads = [
            threading.Thread(target=self._run, args=(queue,), name=f"recording-{number}", daemon=True)
            for number, queue in enumerate(self._queues)
        ]
        self._next = 0
        self._closed = False
        self._slow_until = 0.0
        self.files = ThreadPoolExecutor(THREADS, "recording-files")
        for thread in self._threads:
            thread.start()

    @property
    def disk_is_quick(self) -> bool:
        """Nothing took longer than SLOW lately: small writes may be done on the event loop."""
        return not self._closed and time.monotonic() >= self._slow_until

    def took(self, seconds: float) -> None:
        """A write has taken so long."""
        if seconds > SLOW:
            self._slow_until = time.monotonic() + RELENT

    def submit(self, queue: Queue, job: Job) -> None:
        """Raises Refusal once the threads are told to end."""
        if self._closed:
            raise Refusal(Reason.SHUTTING_DOWN, "The bastion is shutting down.", "the recording store is closed")
        queue.put(job)

    def pin(self) -> Queue:
        """The queue of the thread that is to write the next recording."""
        self._next = (self._next + 1) % THREADS
        return self._queues[self._next]

    async def close(self) -> None:
        """Does what is queued, then ends the threads."""
        self._closed = True
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            await self._loop.run_in_executor(self.files, thread.join)
        self._loop.remove_reader(self._wakeup)
        self._settle()
        os.close(self._wakeup)
        self.files.shutdown(wait=False)

    def _run(self, queue: Queue) -> None:
        running = True
        while running:
            jobs: dict[Sink, list[Job]] = {}
            job = queue.get()
            while True:
                if job is None:
                    running = False
                    break
                jobs.setdefault(job.sink, []).append(job)
                if queue.empty():  # this thread alone takes from it
                    break
                job = queue.get()
            for sink, batch in jobs.items():
                sink.perform(batch)
                self._done.extend(batch)
                os.eventfd_write(self._wakeup, 1)

    def _settle(self) -> None:
        with contextlib.suppress(BlockingIOError):  # close() looks without having been woken
            os.eventfd_read(self._wakeup)
        while self._done:
            job = self._done.popleft()
            job.sink.settled()
            job.settle()
