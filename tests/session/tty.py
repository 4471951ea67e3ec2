"""A client's terminal for the picker's tests: an emulator (pyte), and the bytes that its keys send."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pyte
from wcwidth import wcwidth

from bastion.model import Address, Container, ContainerState, Terminal
from bastion.session.inbox import Inbox
from bastion.session.picker import pick

DEADLINE = 10  # seconds
DOWN, UP, PAGE_DOWN, PAGE_UP, HOME, END = b"\x1b[B", b"\x1b[A", b"\x1b[6~", b"\x1b[5~", b"\x1b[H", b"\x1b[F"
DRAWN = re.compile(r"\x1b\[\?(?:1049|7|25)[hl]|\x1b\[\d+;1H\x1b\[2K|\x1b\[\d*(?:;\d+)?[HJ]|\x1b\[[07]m")


def container(
    app: str,
    proc: str = "web",
    instance: int = 1,
    *,
    image: str = "debian:12",
    name: str | None = None,
    state: ContainerState = ContainerState.RUNNING,
) -> Container:
    name = f"{app}-{proc}-{instance}" if name is None else name
    return Container("local", name, name, image, {}, state, Address(app, proc, instance))


def many(count: int) -> list[Container]:
    return [container("app", "web", number) for number in range(1, count + 1)]


class Tty:
    """The client: a keyboard, and a screen that remembers what was on it before."""

    def __init__(self, columns: int = 80, rows: int = 24, term: str = "xterm-256color") -> None:
        self.terminal = Terminal(term, columns, rows)
        self.resized = asyncio.Event()
        self.inbox = Inbox(lambda: None, lambda: None)
        self.sent = bytearray()
        self.frames: list[bytes] = []
        self.broken = False  # writing fails, as to a client that is gone
        self.stuck = asyncio.Event()  # clear: the client does not read
        self.stuck.set()
        self._drawn = asyncio.Event()
        self._main, self._alternate = self._screen(), self._screen()
        self._main_stream, self._alternate_stream = pyte.ByteStream(self._main), pyte.ByteStream(self._alternate)
        self.on_alternate = False
        self._main_stream.feed(b"before\r\n")
        self._untouched = self.state()

    def _screen(self) -> pyte.Screen:
        return pyte.Screen(min(self.terminal.columns, 300) or 80, min(self.terminal.rows, 100) or 24)

    def write(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.sent += data
        self.frames.append(data)
        for part in re.split(rb"(\x1b\[\?1049[hl])", data):
            if part.startswith(b"\x1b[?1049"):
                modes = set(self._shown.mode)  # they are the terminal's, not a screen's
                self.on_alternate = part.endswith(b"h")
                self._shown.mode = modes
            else:
                (self._alternate_stream if self.on_alternate else self._main_stream).feed(part)

    async def drain(self) -> None:
        self._drawn.set()
        await self.stuck.wait()
        if self.broken:
            raise ConnectionResetError

    def resize(self, columns: int, rows: int) -> None:
        self.terminal = Terminal(self.terminal.term, columns, rows)
        self._alternate.resize(rows, columns)
        self._main.resize(rows, columns)
        self.resized.set()

    @property
    def _shown(self) -> pyte.Screen:
        return self._alternate if self.on_alternate else self._main

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._shown.display]

    @property
    def selected(self) -> str:
        (line,) = [line for line in self.lines if line.startswith("> ")]
        return line.split()[1]

    @property
    def cursor(self) -> tuple[int, int]:
        return self._shown.cursor.y, self._shown.cursor.x

    @property
    def hidden(self) -> bool:
        return pyte.modes.DECTCEM not in self._shown.mode

    def state(self) -> tuple[object, ...]:
        return self.on_alternate, set(self._shown.mode), self._shown.cursor.attrs, self.cursor, self.lines

    def assert_restored(self) -> None:
        assert self.state() == self._untouched

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._drawn.clear()
                await self._drawn.wait()

    async def shows(self, text: str) -> None:
        await self.until(lambda: any(text in line for line in self.lines))

    async def send(self, keys: bytes) -> None:
        """Type, and see what it does."""
        drawn = len(self.frames)
        self.inbox.feed(keys)
        await self.until(lambda: len(self.frames) > drawn)

    async def pick(self, containers: Sequence[Container]) -> Container | None:
        async with asyncio.timeout(DEADLINE):
            return await pick(containers, lambda: self.terminal, self.resized, self.inbox, self.write, self.drain)

    async def answer(self, containers: Sequence[Container], keys: bytes) -> Container | None:
        """What comes of these keys, sent at once; the screen is as before."""
        self.inbox.feed(keys)
        chosen = await self.pick(containers)
        self.assert_restored()
        return chosen


@asynccontextmanager
async def picking(tty: Tty, containers: Sequence[Container]) -> AsyncIterator[asyncio.Task[Container | None]]:
    task = asyncio.create_task(tty.pick(containers))
    try:
        await tty.until(lambda: len(tty.frames) > 1)
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert asyncio.all_tasks() == {asyncio.current_task()}  # no task of the picker's is left


class Pieces:
    """Gives each piece in a read of its own, then the end."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    def unread(self, data: bytes) -> None:
        self.pieces.insert(0, data)


def assert_fits(frame: bytes, columns: int, rows: int) -> None:
    for piece in re.split(r"\x1b\[(?=\d+;1H\x1b\[2K)", frame.decode())[1:]:
        assert int(piece.partition(";")[0]) <= rows
        text = DRAWN.sub("", piece.partition("\x1b[2K")[2])
        assert sum(map(wcwidth, text)) <= columns
