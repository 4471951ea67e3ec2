"""What the client has sent and nobody has taken yet."""

import asyncio
from collections.abc import Callable

HIGH_WATER = 256 * 1024  # bytes; above it the channel is paused, below half of it resumed
READ_SIZE = 256 * 1024  # bytes; at most so many are taken at once


class Inbox:
    """The input of a session, in order, bounded: `pause` is called above the high-water mark, `resume` below.

    A client may send what goes beyond the mark until its window is used up (RFC 4254 section 5.2).
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._paused = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._eof = False
        self._reader: asyncio.Future[None] | None = None
        self.on_input: Callable[[], None] | None = None  # called when there is something to `take`

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._wake()
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()

    def feed_eof(self) -> None:
        """The client will send no more; what it has sent can still be read."""
        self._eof = True
        self._wake()

    def unread(self, data: bytes) -> None:
        """Put back what was read too far: it comes first at the next read."""
        if data:
            self._chunks.insert(0, data)
            self._size += len(data)

    async def read(self) -> bytes:
        """All that is there, up to READ_SIZE; b"" at the end of the input."""
        while (data := self.take()) is None:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return data

    def take(self) -> bytes | None:
        """The same at once; None if there is nothing yet."""
        if not self._chunks:
            return b"" if self._eof else None
        data = self._join()
        self._size -= len(data)
        if self._paused and self._size <= HIGH_WATER // 2:
            self._paused = False
            self._resume()
        return data

    def _join(self) -> bytes:
        joined = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if len(joined) > READ_SIZE:
            self._chunks.append(joined[READ_SIZE:])
        return joined[:READ_SIZE]

    def _wake(self) -> None:
        if self.on_input is not None:
            self.on_input()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
