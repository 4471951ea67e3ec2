"""Between a channel and an exec. What passes is on the recording first."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from bastion.model import Chunk, Terminal
from bastion.session import pumps
from bastion.session.client import Client
from bastion.session.inbox import Inbox
from bastion.session.pumps import InputPump, OutputPump


class Program(pumps.Program, Protocol):
    """What the bridge needs of an exec."""

    async def read(self) -> list[Chunk]: ...
    def on_output(self, call: Callable[[], None]) -> None: ...
    def on_drained(self, call: Callable[[], None]) -> None: ...
    async def resize(self, columns: int, rows: int) -> None: ...
    async def signal(self, name: str) -> None: ...


class Recorder(pumps.Recorder, Protocol):
    """What the bridge needs of a recording."""

    def resize(self, columns: int, rows: int) -> Awaitable[None]: ...


class Observer(Protocol):
    """What looks on, for as long as the bridge runs."""

    def seen(self, chunk: Chunk) -> None: ...
    def resized(self, terminal: Terminal) -> None: ...
    async def run(self) -> None: ...


class Bridge:
    """Two pumps, each as slow as its slowest end, and control (sizes and signals).

    Control has a task of its own while there is any, since a signal must arrive while the program reads no input.
    """

    def __init__(
        self,
        client: Client,
        inbox: Inbox,
        program: Program,
        recorder: Recorder,
        observer: Observer,
        log_resize: Callable[[Terminal], Awaitable[None]],
    ) -> None:
        self._observer = observer
        self._inbox = inbox
        self._program = program
        self._recorder = recorder
        self._log_resize = log_resize
        self._running = False
        self._size: Terminal | None = None
        self._signals: list[str] = []
        self._controlling: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._input = InputPump(inbox, recorder, program, self._over, observer.seen)
        self._output = OutputPump(program, recorder, client, self._over, observer.seen)

    def resize(self, terminal: Terminal) -> None:
        """The terminal has a new size; of several the newest wins."""
        self._size = terminal
        self._control()

    def signal(self, name: str) -> None:
        """The client sent a signal (RFC 4254 section 6.9); one that is under way already is not sent twice."""
        if name not in self._signals:
            self._signals.append(name)
            self._control()

    def _control(self) -> None:
        if self._running and self._controlling is None:
            self._controlling = self._task(self._pass_control())

    def output_closed(self) -> None:
        """The client takes no more output: what the program says from now on gets it a SIGPIPE."""
        self._output.refuse(lambda: self.signal("PIPE"))

    def client_drained(self) -> None:
        """The client is no longer `full`."""
        self._output.go()

    async def run(self) -> None:
        """Returns when the program's output has ended, and all of it was passed on.

        Raises Refusal: the recording, the engine or the log failed.
        """
        tasks = [self._task(self._begin_output()), self._task(self._observer.run())]
        self._running = True
        if self._size is not None or self._signals:
            self._control()
        self._inbox.on_input = self._input.go
        self._program.on_drained(self._input.go)
        self._input.go()
        try:
            await self._over
        finally:
            self._running = False
            if self._controlling is not None:
                tasks.append(self._controlling)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """One whose failure ends it all."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) and not self._over.done():
                self._over.set_exception(error)

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    async def _begin_output(self) -> None:
        """The first output tells, too, whether the program could be started."""
        chunks = await self._program.read()
        self._program.on_output(self._output.go)
        self._output.feed(chunks)
        self._output.go()

    async def _pass_control(self) -> None:
        while self._size is not None or self._signals:
            if self._size is not None:
                size, self._size = self._size, None
                await self._recorder.resize(size.columns, size.rows)
                self._observer.resized(size)
                await self._log_resize(size)
                await self._program.resize(size.columns, size.rows)
            while self._signals:
                await self._program.signal(self._signals[0])
                del self._signals[0]
        self._controlling = None
