"""The pumps between a channel and an exec. What passes is on the recording first."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from bastion.model import Chunk, Stream, Terminal
from bastion.session.client import Client
from bastion.session.inbox import Inbox

HOLD_SECONDS = 0.05  # how long the first bytes of a character wait for its last ones


class Program(Protocol):
    """What the bridge needs of an exec."""

    async def read(self) -> list[Chunk]: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    async def resize(self, columns: int, rows: int) -> None: ...
    async def signal(self, name: str) -> None: ...


class Recorder(Protocol):
    """What the bridge needs of a recording."""

    @property
    def holding(self) -> bool: ...
    async def write(self, chunks: list[Chunk]) -> list[Chunk]: ...
    async def flush(self) -> list[Chunk]: ...
    async def resize(self, columns: int, rows: int) -> None: ...


class Bridge:
    """Three pumps, each as slow as its slowest end: output, input, and control (sizes and signals).

    Control has a pump of its own, since a signal must arrive while the program reads no input.
    """

    def __init__(
        self,
        client: Client,
        inbox: Inbox,
        program: Program,
        recorder: Recorder,
        log_resize: Callable[[Terminal], Awaitable[None]],
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._program = program
        self._recorder = recorder
        self._log_resize = log_resize
        self._size: Terminal | None = None
        self._signals: list[str] = []
        self._control = asyncio.Event()
        self._output_closed = False

    def resize(self, terminal: Terminal) -> None:
        """The terminal has a new size; of several the newest wins."""
        self._size = terminal
        self._control.set()

    def signal(self, name: str) -> None:
        """The client sent a signal (RFC 4254 section 6.9); one that is under way already is not sent twice."""
        if name not in self._signals:
            self._signals.append(name)
            self._control.set()

    def output_closed(self) -> None:
        """The client takes no more output: what the program says from now on gets it a SIGPIPE."""
        self._output_closed = True

    async def run(self) -> None:
        """Pump until the program's output has ended.

        Raises Refusal (the recording or the engine failed) or ConnectionError (the client is gone).
        """
        others = [asyncio.create_task(self._pump_input()), asyncio.create_task(self._pump_control())]
        output = asyncio.create_task(self._pump_output())
        pumps = {output, *others}
        try:
            while not output.done():
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in done:
                    pump.result()
                pumps -= done
        finally:
            for pump in (output, *others):
                pump.cancel()
            await asyncio.gather(output, *others, return_exceptions=True)

    async def _pump_output(self) -> None:
        while chunks := await self._read():
            if self._output_closed:
                self.signal("PIPE")
            else:
                await self._pass_on(await self._recorder.write(chunks))
        await self._pass_on(await self._recorder.flush())

    async def _read(self) -> list[Chunk]:
        if not self._recorder.holding:
            return await self._program.read()
        reading = asyncio.create_task(self._program.read())
        try:
            await asyncio.wait({reading}, timeout=HOLD_SECONDS)
            if not reading.done():
                await self._pass_on(await self._recorder.flush())
            return await reading
        finally:
            reading.cancel()

    async def _pass_on(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._client.write(chunk)
        await self._client.drain()

    async def _pump_input(self) -> None:
        while data := await self._inbox.read():
            await self._recorder.write([(Stream.INPUT, data)])
            try:
                self._program.write(data)
                await self._program.drain()
            except ConnectionError:
                break  # the program reads no more; its output and status may still come
        else:
            with contextlib.suppress(ConnectionError):
                self._program.write_eof()
            return
        while await self._inbox.read():
            pass  # what nobody reads: the client is not to be held up by it

    async def _pump_control(self) -> None:
        while True:
            await self._control.wait()
            self._control.clear()
            if self._size is not None:
                size, self._size = self._size, None
                await self._recorder.resize(size.columns, size.rows)
                await self._log_resize(size)
                await self._program.resize(size.columns, size.rows)
            while self._signals:
                await self._program.signal(self._signals[0])
                del self._signals[0]
