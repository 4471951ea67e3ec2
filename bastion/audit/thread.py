"""A thread of its own for calls that may block for ever."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Thread:
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
            except Exception as raised:
                result, error = None, raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._calls.put(run)
        return await future

    def end(self, last: Callable[[], None] = lambda: None) -> None:
        """Call `last` after all that was given before, and end."""
        self._calls.put(last)
        self._calls.put(None)
