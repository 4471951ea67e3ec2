"""The two directions between a channel and an exec, and where what passes can be observed."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from bastion.model import Chunk, Stream
from bastion.session.client import Client
from bastion.session.inbox import Inbox

HOLD_SECONDS = 0.05  # how long the first bytes of a character wait for its last ones
IN_FLIGHT = 2  # takings on their way to the file at a time: one is written while the next is taken


class Program(Protocol):
    """What the pumps need of an exec."""

    @property
    def full(self) -> bool: ...
    def take(self) -> list[Chunk] | None: ...
    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...


class Recorder(Protocol):
    """What the pumps need of a recording."""

    @property
    def holding(self) -> bool: ...
    def write(self, chunks: list[Chunk]) -> asyncio.Future[list[Chunk]]: ...
    def flush(self) -> asyncio.Future[list[Chunk]]: ...


class Pump(ABC):
    """One direction: what there is is taken, recorded and then passed on, in one call where nothing has to wait.

    Nothing is taken while the far side is full or the recording is behind, so that the near side has to wait.
    `over` ends both directions, and has the exception where one could not go on.
    """

    def __init__(self, recorder: Recorder, over: asyncio.Future[None], seen: Callable[[Chunk], None]) -> None:
        self._recorder = recorder
        self._over = over
        self._seen = seen
        self._in_flight = 0
        self._pumping = False
        self._ended = False  # there is no more to take
        self._finished = False  # and all of it has been passed on

    def go(self) -> None:
        """To be called whenever there is something to take, or room for it again."""
        if not self._pumping:  # passing on may make room
            self._guard(self._pump)

    def feed(self, chunks: list[Chunk]) -> None:
        """Record and pass on what was taken elsewhere; nothing is the end."""
        self._guard(lambda: self._record(chunks))

    def _record(self, chunks: list[Chunk]) -> None:
        self._ended = not chunks
        self._send(self._recorder.write(chunks) if chunks else self._last())

    def _pump(self) -> None:
        while not self._ended and self._in_flight < IN_FLIGHT and not self._full():
            chunks = self._take()
            if chunks is None:
                break
            self._record(chunks)

    def _send(self, recording: asyncio.Future[list[Chunk]]) -> None:
        if recording.done() and not self._in_flight:
            self._pass_on(recording.result())
        else:
            self._in_flight += 1
            recording.add_done_callback(self._recorded)

    def _recorded(self, recording: asyncio.Future[list[Chunk]]) -> None:
        self._in_flight -= 1
        recording.exception()  # is seen, also where all is over already
        self._guard(lambda: self._pass_on(recording.result()))
        self.go()

    def _pass_on(self, chunks: list[Chunk]) -> None:
        """All that passes comes through here, in the order in which it was recorded."""
        for chunk in chunks:
            self._deliver(chunk)
            self._seen(chunk)
        if self._ended and not self._in_flight and not self._finished:
            self._finished = True
            self._finish()

    def _guard(self, step: Callable[[], None]) -> None:
        if self._over.done():
            return
        self._pumping = True
        try:
            step()
        except Exception as error:
            self._over.set_exception(error)
        finally:
            self._pumping = False

    def _last(self) -> asyncio.Future[list[Chunk]]:
        """What the recording still has to pass on at the end."""
        return self._recorder.write([])

    @abstractmethod
    def _take(self) -> list[Chunk] | None:
        """None if there is nothing yet, [] at the end."""

    @abstractmethod
    def _full(self) -> bool:
        """Does the far side take no more at the moment?"""

    @abstractmethod
    def _deliver(self, chunk: Chunk) -> None:
        """To the far side."""

    @abstractmethod
    def _finish(self) -> None:
        """All has been delivered."""


class InputPump(Pump):
    """From the client to the program."""

    def __init__(
        self,
        inbox: Inbox,
        recorder: Recorder,
        program: Program,
        over: asyncio.Future[None],
        seen: Callable[[Chunk], None],
    ) -> None:
        super().__init__(recorder, over, seen)
        self._inbox = inbox
        self._program = program

    def _take(self) -> list[Chunk] | None:
        data = self._inbox.take()
        if data is None:
            return None
        return [(Stream.INPUT, data)] if data else []

    def _full(self) -> bool:
        return self._program.full

    def _deliver(self, chunk: Chunk) -> None:
        self._program.write(chunk[1])

    def _finish(self) -> None:
        self._program.write_eof()


class OutputPump(Pump):
    """From the program to the client; its end is the end of both."""

    def __init__(
        self,
        program: Program,
        recorder: Recorder,
        client: Client,
        over: asyncio.Future[None],
        seen: Callable[[Chunk], None],
    ) -> None:
        super().__init__(recorder, over, seen)
        self._program = program
        self._client = client
        self._refused: Callable[[], None] | None = None
        self._hold_timer: asyncio.TimerHandle | None = None

    def refuse(self, refused: Callable[[], None]) -> None:
        """The client takes no more: call `refused` for what comes from now on, and drop it."""
        self._refused = refused
        self.go()

    def _record(self, chunks: list[Chunk]) -> None:
        if chunks and self._refused is not None:
            self._refused()
        else:
            super()._record(chunks)

    def _pass_on(self, chunks: list[Chunk]) -> None:
        super()._pass_on(chunks)
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        if self._recorder.holding and not self._ended:
            self._hold_timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._guard, self._release)

    def _release(self) -> None:
        self._hold_timer = None
        self._send(self._recorder.flush())

    def _last(self) -> asyncio.Future[list[Chunk]]:
        return self._recorder.flush()

    def _take(self) -> list[Chunk] | None:
        return self._program.take()

    def _full(self) -> bool:
        return self._client.full and self._refused is None

    def _deliver(self, chunk: Chunk) -> None:
        self._client.write(chunk)

    def _finish(self) -> None:
        self._over.set_result(None)
