"""The pumps, against ends that are slow, deaf or gone. Real channels and execs are in tests/e2e."""

import asyncio
from collections import deque
from collections.abc import Callable

import pytest

from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Stream, Terminal
from bastion.session.bridge import Bridge
from bastion.session.inbox import Inbox
from bastion.session.pumps import IN_FLIGHT

OUT, ERR, IN = Stream.OUTPUT, Stream.ERROR, Stream.INPUT


class Happened(list[tuple[str, object]]):
    """What happened at the three ends, in order."""

    def of(self, *names: str) -> list[tuple[str, object]]:
        return [event for event in self if event[0] in names]


class Client:
    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.full = False
        self.full_after_each = False
        self.on_write: Callable[[], None] = lambda: None

    def write(self, chunk: Chunk) -> None:
        self.happened.append(("client", chunk))
        self.full = self.full or self.full_after_each
        self.on_write()


class Program:
    """In memory: a real engine can not be made to stop at a chosen instant."""

    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.full = False
        self.full_after_each = False
        self.output: deque[list[Chunk]] = deque()
        self._readable = asyncio.Event()
        self._on_output: Callable[[], None] = self._readable.set
        self.drained: Callable[[], None] = lambda: None
        self.answers = asyncio.Event()
        self.answers.set()

    def say(self, *chunks: Chunk) -> None:
        """Nothing is the end."""
        self.output.append(list(chunks))
        self._on_output()

    async def read(self) -> list[Chunk]:
        await self._readable.wait()
        return self.output.popleft()

    def on_output(self, call: Callable[[], None]) -> None:
        self._on_output = call

    def on_drained(self, call: Callable[[], None]) -> None:
        self.drained = call

    def take(self) -> list[Chunk] | None:
        return self.output.popleft() if self.output else None

    def write(self, data: bytes) -> None:
        self.happened.append(("program", data))
        self.full = self.full or self.full_after_each

    def write_eof(self) -> None:
        self.happened.append(("program eof", None))

    async def resize(self, columns: int, rows: int) -> None:
        self.happened.append(("resize", (columns, rows)))

    async def signal(self, name: str) -> None:
        self.happened.append(("signal", name))
        await self.answers.wait()


class Onlooker:
    """Sees all and says nothing."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def seen(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def resized(self, terminal: Terminal) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


class Recorder:
    """Quick, or so slow that what is written has to wait for `catch_up`."""

    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.error: Refusal | None = None
        self.held: list[Chunk] = []
        self.quick = True
        self.late: list[tuple[asyncio.Future[list[Chunk]], list[Chunk]]] = []

    @property
    def holding(self) -> bool:
        return bool(self.held)

    def write(self, chunks: list[Chunk]) -> asyncio.Future[list[Chunk]]:
        if self.error is not None:
            raise self.error
        self.happened.extend(("recording", chunk) for chunk in chunks)
        passed = []
        for stream, data in self.held + chunks:
            self.held = [(stream, data[-1:])] if data.endswith(b"\xc3") else []
            passed.append((stream, data[:-1] if self.held else data))
        return self._done([chunk for chunk in passed if chunk[1]])

    def flush(self) -> asyncio.Future[list[Chunk]]:
        held, self.held = self.held, []
        return self._done(held)

    async def resize(self, columns: int, rows: int) -> None:
        self.happened.append(("recorded resize", (columns, rows)))

    def catch_up(self) -> None:
        self.quick = True
        for future, chunks in self.late:
            future.set_result(chunks)
        self.late.clear()

    def _done(self, chunks: list[Chunk]) -> asyncio.Future[list[Chunk]]:
        future: asyncio.Future[list[Chunk]] = asyncio.get_running_loop().create_future()
        if self.quick:
            future.set_result(chunks)
        else:
            self.late.append((future, chunks))
        return future


class Bridged:
    def __init__(self) -> None:
        self.happened = Happened()
        self.client, self.program, self.recorder = (made(self.happened) for made in (Client, Program, Recorder))
        self.inbox = Inbox(lambda: None, lambda: None)
        self.onlooker = Onlooker()
        self.bridge = Bridge(self.client, self.inbox, self.program, self.recorder, self.onlooker, self.log_resize)  # type: ignore[arg-type]  # a part of a Client
        self.running = asyncio.create_task(self.bridge.run())

    async def log_resize(self, terminal: Terminal) -> None:
        self.happened.append(("logged resize", (terminal.columns, terminal.rows)))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the ends have no event to wait for
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.program.say()
        await asyncio.wait_for(self.running, 5)


async def test_both_ways_through_the_recording_first() -> None:
    b = Bridged()
    b.inbox.feed(b"in")
    b.program.say((OUT, b"out"), (ERR, b"err"))
    await b.until(lambda: len(b.happened) == 6)
    await b.end()
    for stream, data, end in ((IN, b"in", "program"), (OUT, b"out", "client"), (ERR, b"err", "client")):
        arrived = (end, data if end == "program" else (stream, data))
        assert b.happened.index(("recording", (stream, data))) < b.happened.index(arrived)


async def test_what_has_passed_is_observed_in_order() -> None:
    b = Bridged()
    b.inbox.feed(b"ls\r")
    await b.until(lambda: b.happened.of("program"))
    b.program.say((OUT, b"ls\r\n"), (ERR, b"!"))
    await b.until(lambda: len(b.happened.of("client")) == 2)
    assert b.onlooker.chunks == [(IN, b"ls\r"), (OUT, b"ls\r\n"), (ERR, b"!")]
    await b.end()


async def test_a_key_and_its_echo_need_no_turn_of_the_event_loop() -> None:
    b = Bridged()
    b.program.say((OUT, b"$ "))
    await b.until(lambda: b.happened.of("client"))
    b.inbox.feed(b"l")
    assert b.happened[-1] == ("program", b"l")
    b.program.say((OUT, b"l"))
    assert b.happened[-1] == ("client", (OUT, b"l"))
    await b.end()


async def test_what_can_not_be_recorded_is_not_passed_on() -> None:
    b = Bridged()
    b.recorder.error = Refusal(Reason.RECORDING_FAILED, "full")
    b.program.say((OUT, b"secret"))
    with pytest.raises(Refusal):
        await asyncio.wait_for(b.running, 5)
    assert not b.happened.of("client", "program")
    b = Bridged()
    b.recorder.error = Refusal(Reason.RECORDING_FAILED, "full")
    b.inbox.feed(b"rm -rf /")
    with pytest.raises(Refusal):
        await asyncio.wait_for(b.running, 5)
    assert not b.happened.of("client", "program")


async def test_a_failure_that_comes_late_ends_it_too() -> None:
    b = Bridged()
    b.recorder.quick = False
    b.program.say((OUT, b"secret"))
    await b.until(lambda: b.recorder.late)
    b.recorder.late[0][0].set_exception(Refusal(Reason.RECORDING_FAILED, "full"))
    with pytest.raises(Refusal):
        await asyncio.wait_for(b.running, 5)
    assert not b.happened.of("client")


async def test_what_is_recorded_late_is_passed_on_in_its_order_and_before_what_comes_then() -> None:
    b = Bridged()
    b.recorder.quick = False
    for number in range(5):
        b.program.say((OUT, b"%d" % number))
    await b.until(lambda: len(b.recorder.late) == IN_FLIGHT)
    assert len(b.program.output) == 5 - IN_FLIGHT  # the rest waits where it is
    assert not b.happened.of("client")
    b.recorder.catch_up()  # the next would be quicker than the turn in which the first ones are passed on
    b.program.say((OUT, b"5"))
    await b.end()
    assert b.happened.of("client") == [("client", (OUT, b"%d" % number)) for number in range(6)]


async def test_room_that_comes_while_passing_on_does_not_change_the_order() -> None:
    b = Bridged()
    b.client.on_write = b.bridge.client_drained
    b.recorder.quick = False
    b.program.say((OUT, b"1"), (ERR, b"2"))
    b.program.say((OUT, b"3"), (ERR, b"4"))
    b.program.say((OUT, b"5"))
    await b.until(lambda: len(b.recorder.late) == IN_FLIGHT)
    b.recorder.catch_up()
    await b.end()
    assert b"".join(chunk[1] for _, chunk in b.happened.of("client")) == b"12345"  # type: ignore[index]


async def test_the_end_of_input_is_passed_on_after_the_input_and_output_goes_on() -> None:
    b = Bridged()
    b.recorder.quick = False
    b.inbox.feed(b"all")
    b.inbox.feed_eof()
    await b.until(lambda: len(b.recorder.late) == 2)
    assert not b.happened.of("program eof")
    b.recorder.catch_up()
    await b.until(lambda: b.happened.of("program eof"))
    assert b.happened.of("program", "program eof") == [("program", b"all"), ("program eof", None)]
    b.program.say((OUT, b"later"))
    await b.end()
    assert b.happened.of("client") == [("client", (OUT, b"later"))]


async def test_a_client_that_takes_nothing_stops_the_output_but_not_the_input() -> None:
    b = Bridged()
    b.client.full_after_each = True
    for _ in range(10):
        b.program.say((OUT, b"x"))
    b.inbox.feed(b"\x03")
    await b.until(lambda: b.happened.of("client"))
    assert b.happened.of("program")
    assert len(b.program.output) == 9
    b.client.full = b.client.full_after_each = False
    b.bridge.client_drained()
    await b.end()
    assert len(b.happened.of("client")) == 10


async def test_a_program_that_takes_nothing_still_gets_signals_and_sizes() -> None:
    b = Bridged()
    b.program.full_after_each = True
    b.inbox.feed(b"x")
    b.inbox.feed(b"y")
    await b.until(lambda: b.happened.of("program"))
    b.inbox.feed(b"z")
    b.bridge.signal("TERM")
    b.bridge.resize(Terminal("xterm", 80, 24))
    b.bridge.resize(Terminal("xterm", 100, 50))
    await b.until(lambda: b.happened.of("signal"))
    assert b.happened.of("resize") == [("resize", (100, 50))]
    assert b.happened.of("recorded resize", "resize")[0][0] == "recorded resize"
    assert len(b.happened.of("program")) == 1
    b.program.full = b.program.full_after_each = False
    b.program.drained()  # also where it has said nothing yet, as `cat > file`
    assert b"".join(data for _, data in b.happened.of("program")) == b"xyz"  # type: ignore[misc]
    await b.end()


async def test_the_first_bytes_of_a_character_are_not_held_for_long() -> None:
    b = Bridged()
    b.program.say((OUT, b"caf\xc3"))
    await b.until(lambda: b.happened.of("client") == [("client", (OUT, b"caf")), ("client", (OUT, b"\xc3"))])
    b.program.say((OUT, b"\xa9"))
    await b.end()
    assert b.happened[-1] == ("client", (OUT, b"\xa9"))


async def test_no_task_outlives_it_and_nothing_passes_any_more() -> None:
    before = asyncio.all_tasks()
    b = Bridged()
    b.program.answers.clear()
    b.bridge.signal("TERM")
    await b.until(lambda: len(asyncio.all_tasks()) == len(before) + 4)
    b.program.say((OUT, b"x"))
    await b.until(lambda: b.happened.of("client"))
    b.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await b.running
    assert asyncio.all_tasks() == before
    happened = list(b.happened)
    b.program.say((OUT, b"x"))
    b.inbox.feed(b"y")
    assert b.happened == happened


async def test_output_that_nobody_takes_is_answered_with_sigpipe() -> None:
    b = Bridged()
    b.client.full = True
    b.bridge.output_closed()
    b.program.say((OUT, b"x"))
    await b.until(lambda: b.happened.of("signal") == [("signal", "PIPE")])
    await b.end()
    assert not b.happened.of("client")
