"""What is read beside the data path: batches, overload, defects of the reading, and the last commands of a session."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bastion.audit.events import Event
from bastion.commands.detector import Detector
from bastion.errors import Reason, Unavailable
from bastion.model import Stream, Terminal
from bastion.session.observer import QUEUE, Observer

TERMINAL = Terminal("xterm", 80, 24)
BEGIN, END = b"\x1b[?2004h$ ", b"\r\n\x1b[?2004l\r"


class Log:
    """Keeps what it is given; the real one is in tests/e2e."""

    def __init__(self) -> None:
        self.commands: list[dict[str, object]] = []
        self.refuses = False

    async def emit(self, event: Event, **fields: object) -> None:
        assert event is Event.SESSION_COMMAND
        if self.refuses:
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "no", "no")
        self.commands.append(fields)

    @property
    def contents(self) -> list[object]:
        return [fields["content"] for fields in self.commands]


class Observed:
    def __init__(self, worker: ThreadPoolExecutor, terminal: Terminal | None = TERMINAL, command: str | None = None):
        self.log = Log()
        self.at = 0.0
        self.observer = Observer(self.log, lambda: self.at, worker, terminal, command)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.observer.run())

    def shell(self, line: bytes) -> None:
        self.observer.seen((Stream.OUTPUT, BEGIN))
        for key in line:
            self.observer.seen((Stream.INPUT, bytes([key])))
            self.observer.seen((Stream.OUTPUT, bytes([key])))
        self.observer.seen((Stream.INPUT, b"\r"))
        self.observer.seen((Stream.OUTPUT, END))

    async def until(self, contents: list[object]) -> None:
        async with asyncio.timeout(10):
            while self.log.contents != contents:  # noqa: ASYNC110 - the log has no event to wait for
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        await self.observer.finish()


@pytest.fixture
async def worker() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_a_command_is_told_while_the_session_goes_on(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker)
    o.shell(b"ls")
    o.at = 5.0  # nothing can continue it any more
    await o.until(["ls"])
    assert o.log.commands == [{"content": "ls", "confidence": "exact", "at": 0.0, "prompt": "$ ", "degraded": False}]
    await o.end()


async def test_the_last_command_is_told_though_the_session_ends_at_once(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker, command="bash -l")
    o.shell(b"rm x")
    await o.end()
    assert o.log.contents == ["bash -l", "rm x"]


async def test_a_command_without_a_terminal_is_exact_and_its_input_is_data(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker, None, "cat > file")
    o.observer.seen((Stream.INPUT, b"data\n"))
    await o.end()
    assert [(c["content"], c["confidence"]) for c in o.log.commands] == [("cat > file", "exact")]


async def test_what_is_piped_into_a_shell_is_input(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker, None, "sh -s")
    o.observer.seen((Stream.INPUT, b"id\nls\n"))
    await o.end()
    assert [(c["content"], c["confidence"]) for c in o.log.commands] == [("sh -s", "exact"), ("id\nls", "input")]


async def test_overload_is_bounded_and_the_next_command_says_so(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker)
    o.observer.seen((Stream.INPUT, b"x"))
    for _ in range(3 * QUEUE // 65536):
        o.observer.seen((Stream.OUTPUT, b"y" * 65535 + b"\n"))
        assert o.observer._size <= QUEUE + 65536
    o.shell(b"ls")
    await o.end()
    assert [(c["content"], c["degraded"]) for c in o.log.commands][-1:] == [("ls", True)]


async def test_a_defect_of_the_reading_is_logged_and_harms_nobody(
    worker: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    o = Observed(worker)
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(Detector, "input", fail)
        o.observer.seen((Stream.INPUT, b"x"))
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110 - nor has logging
                await asyncio.sleep(0.01)
    assert not o.running.done()
    o.shell(b"ls")
    await o.end()
    assert [(c["content"], c["degraded"]) for c in o.log.commands] == [("ls", True)]


async def test_where_the_log_refuses_the_session_is_not_to_go_on(worker: ThreadPoolExecutor) -> None:
    o = Observed(worker, command="id")
    o.log.refuses = True
    with pytest.raises(Unavailable):
        await asyncio.wait_for(o.running, 10)
    await o.observer.finish()
