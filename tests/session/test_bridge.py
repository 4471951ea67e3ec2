"""The pumps, against ends that are slow, deaf or gone. Real channels and execs are in tests/e2e."""

import asyncio
from collections.abc import Callable

import pytest

from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Stream, Terminal
from bastion.session.bridge import Bridge
from bastion.session.inbox import Inbox

OUT, ERR, IN = Stream.OUTPUT, Stream.ERROR, Stream.INPUT


class Happened(list[tuple[str, object]]):
    """What happened at the three ends, in order."""

    def of(self, *names: str) -> list[tuple[str, object]]:
        return [event for event in self if event[0] in names]


class Client:
    def __init__(self, happened: Happened) -> None:
        self.happened, self.takes = happened, asyncio.Event()
        self.takes.set()
        self.gone = False

    def write(self, chunk: Chunk) -> None:
        self.happened.append(("client", chunk))

    async def drain(self) -> None:
        await self.takes.wait()
        if self.gone:
            raise ConnectionResetError


class Program:
    """In memory: a real engine can not be made to stop at a chosen instant."""

    def __init__(self, happened: Happened) -> None:
        self.happened, self.takes, self.output = happened, asyncio.Event(), asyncio.Queue[list[Chunk]]()
        self.takes.set()
        self.deaf = False

    async def read(self) -> list[Chunk]:
        return await self.output.get()

    def write(self, data: bytes) -> None:
        if self.deaf:
            raise BrokenPipeError
        self.happened.append(("program", data))

    async def drain(self) -> None:
        await self.takes.wait()

    def write_eof(self) -> None:
        self.happened.append(("program eof", None))

    async def resize(self, columns: int, rows: int) -> None:
        self.happened.append(("resize", (columns, rows)))

    async def signal(self, name: str) -> None:
        self.happened.append(("signal", name))


class Recorder:
    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.error: Refusal | None = None
        self.held: list[Chunk] = []

    @property
    def holding(self) -> bool:
        return bool(self.held)

    async def write(self, chunks: list[Chunk]) -> list[Chunk]:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(0)
        self.happened.extend(("recording", chunk) for chunk in chunks)
        passed = []
        for stream, data in self.held + chunks:
            self.held = [(stream, data[-1:])] if data.endswith(b"\xc3") else []
            passed.append((stream, data[:-1] if self.held else data))
        return [chunk for chunk in passed if chunk[1]]

    async def flush(self) -> list[Chunk]:
        held, self.held = self.held, []
        return held

    async def resize(self, columns: int, rows: int) -> None:
        self.happened.append(("recorded resize", (columns, rows)))


class Bridged:
    def __init__(self) -> None:
        self.happened = Happened()
        self.client, self.program, self.recorder = (made(self.happened) for made in (Client, Program, Recorder))
        self.inbox = Inbox(lambda: None, lambda: None)
        self.bridge = Bridge(self.client, self.inbox, self.program, self.recorder, self.log_resize)  # type: ignore[arg-type]  # a part of a Client
        self.running = asyncio.create_task(self.bridge.run())

    async def log_resize(self, terminal: Terminal) -> None:
        self.happened.append(("logged resize", (terminal.columns, terminal.rows)))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the ends have no event to wait for
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.program.output.put_nowait([])
        await asyncio.wait_for(self.running, 5)


async def test_both_ways_through_the_recording_first() -> None:
    b = Bridged()
    b.inbox.feed(b"in")
    b.program.output.put_nowait([(OUT, b"out"), (ERR, b"err")])
    await b.until(lambda: len(b.happened) == 6)
    await b.end()
    for stream, data, end in ((IN, b"in", "program"), (OUT, b"out", "client"), (ERR, b"err", "client")):
        arrived = (end, data if end == "program" else (stream, data))
        assert b.happened.index(("recording", (stream, data))) < b.happened.index(arrived)


async def test_what_can_not_be_recorded_is_not_passed_on() -> None:
    b = Bridged()
    b.recorder.error = Refusal(Reason.RECORDING_FAILED, "full")
    b.program.output.put_nowait([(OUT, b"secret")])
    with pytest.raises(Refusal):
        await asyncio.wait_for(b.running, 5)
    assert not b.happened.of("client", "program")
    b = Bridged()
    b.recorder.error = Refusal(Reason.RECORDING_FAILED, "full")
    b.inbox.feed(b"rm -rf /")
    with pytest.raises(Refusal):
        await asyncio.wait_for(b.running, 5)
    assert not b.happened.of("client", "program")


async def test_the_end_of_input_is_passed_on_after_the_input_and_output_goes_on() -> None:
    b = Bridged()
    b.inbox.feed(b"all")
    b.inbox.feed_eof()
    await b.until(lambda: b.happened.of("program eof"))
    assert b.happened.of("program", "program eof") == [("program", b"all"), ("program eof", None)]
    b.program.output.put_nowait([(OUT, b"later")])
    await b.end()
    assert b.happened.of("client") == [("client", (OUT, b"later"))]


async def test_a_program_that_reads_no_more_does_not_stop_its_output_or_hold_up_the_client() -> None:
    b = Bridged()
    b.program.deaf = True
    b.inbox.feed(b"x")
    b.inbox.feed(b"y" * 1_000_000)
    b.program.output.put_nowait([(OUT, b"out")])
    await b.until(lambda: b.happened.of("client"))
    b.inbox.feed(b"z")
    await b.end()


async def test_a_client_that_takes_nothing_stops_the_output_but_not_the_input() -> None:
    b = Bridged()
    b.client.takes.clear()
    for _ in range(10):
        b.program.output.put_nowait([(OUT, b"x")])
    b.inbox.feed(b"\x03")
    await b.until(lambda: b.happened.of("program"))
    await b.until(lambda: b.program.output.qsize() == 9)
    assert len(b.happened.of("client")) == 1
    b.client.takes.set()
    await b.end()
    assert len(b.happened.of("client")) == 10


async def test_a_program_that_takes_nothing_still_gets_signals_and_sizes() -> None:
    b = Bridged()
    b.program.takes.clear()
    b.inbox.feed(b"x")
    b.inbox.feed(b"y")
    b.bridge.signal("TERM")
    b.bridge.resize(Terminal("xterm", 80, 24))
    b.bridge.resize(Terminal("xterm", 100, 50))
    await b.until(lambda: b.happened.of("signal"))
    assert b.happened.of("resize") == [("resize", (100, 50))]
    assert b.happened.of("recorded resize", "resize")[0][0] == "recorded resize"
    await b.end()


async def test_the_first_bytes_of_a_character_are_not_held_for_long() -> None:
    b = Bridged()
    b.program.output.put_nowait([(OUT, b"caf\xc3")])
    await b.until(lambda: b.happened.of("client") == [("client", (OUT, b"caf")), ("client", (OUT, b"\xc3"))])
    b.program.output.put_nowait([(OUT, b"\xa9")])
    await b.end()
    assert b.happened[-1] == ("client", (OUT, b"\xa9"))


async def test_a_client_that_is_gone_ends_it() -> None:
    b = Bridged()
    b.client.gone = True
    b.program.output.put_nowait([(OUT, b"x")])
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(b.running, 5)


async def test_no_pump_outlives_it() -> None:
    before = asyncio.all_tasks()
    b = Bridged()
    await b.until(lambda: len(asyncio.all_tasks()) == len(before) + 4)
    b.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await b.running
    assert asyncio.all_tasks() == before


async def test_output_that_nobody_takes_is_answered_with_sigpipe() -> None:
    b = Bridged()
    b.bridge.output_closed()
    b.program.output.put_nowait([(OUT, b"x")])
    await b.until(lambda: b.happened.of("signal") == [("signal", "PIPE")])
    await b.end()
    assert not b.happened.of("client")
