"""What was to be read on the screen, and when: each line once, as it stood before something else took its place.

A line that grows, as one does that is typed, is one line; one that moves is the same. It has the time at which it was
last changed. The terminal is emulated by a class that is given.
"""

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bastion.model import Stream
from bastion.recording.asciicast import Code, Event, Reader
from bastion.recording.player import SIZE

SETTLE = 2.0  # seconds after which a line that stays is told
WIDE = 1000, 50  # columns and rows for a session without a terminal
FEEDS = 64  # lines between two looks: far fewer than an emulator keeps above its screen
_FEED = re.compile(rb"[\n\x0b\x0c\x1b]")
_CLEARING = re.compile(rb"\x1b(?:\[[0-9;?]*[JS]|c)")  # what can move a whole screen out of sight
_AFTER_CLEARING = re.compile(rb"(?<=[JSc])")


class Row(Protocol):
    wrapped: bool  # the text goes on in the next row

    def text(self) -> str: ...


class Screen(Protocol):
    """Rows have absolute numbers; `home` is that of the top row, `row_number` that of the cursor's."""

    home: int
    rows: int
    columns: int
    alternate: bool

    @property
    def row_number(self) -> int: ...
    def row(self, number: int) -> Row | None: ...
    def resize(self, columns: int, rows: int) -> None: ...


class Terminal(Protocol):
    @property
    def screen(self) -> Screen: ...
    def feed(self, data: bytes) -> None: ...


MakeTerminal = Callable[[int, int], Terminal]  # of columns and rows


@dataclass(frozen=True, slots=True)
class Line:
    time: float  # seconds in the recording
    text: str


def rendered(reader: Reader, make_terminal: MakeTerminal) -> Iterator[Line]:
    """The lines in the order of their times, but for some that overlap. Raises RecordingError."""
    if reader.header.terminal:
        screen = _Rendering(make_terminal(reader.header.columns, reader.header.rows))
        screens = {Stream.OUTPUT: screen}
    else:
        screens = {stream: _Rendering(make_terminal(*WIDE)) for stream in (Stream.OUTPUT, Stream.ERROR)}
    for event in reader:
        if event.code == Code.RESIZE and (size := SIZE.fullmatch(event.data)):
            for screen in screens.values():
                screen.resize(int(size[1]), int(size[2]))
        elif event.code in (Code.OUTPUT, Code.ERROR):  # what is not text at all shows nothing to read
            stream = Stream(event.code) if not reader.header.terminal else Stream.OUTPUT
            yield from screens[stream].show(event.time, _newlines(event, reader.header.terminal))
    for screen in screens.values():
        yield from screen.finish()


def _newlines(event: Event, terminal: bool) -> bytes:
    return event.data if terminal else event.data.replace(b"\n", b"\r\n")


@dataclass(slots=True)
class _Shown:
    text: str
    time: float
    told: bool


class _Rendering:
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown: dict[int, _Shown] = {}  # by the absolute number of its first row
        self._hidden: dict[int, _Shown] = {}  # the main screen, while the alternate one is shown
        self._alternate = False
        self._from = self._hidden_from = 0  # rows above were told
        self._told: list[tuple[float, int, str]] = []  # a heap: what waits for an older line
        self._count = 0

    def resize(self, columns: int, rows: int) -> None:
        self._terminal.screen.resize(columns, rows)

    def show(self, now: float, data: bytes) -> Iterator[Line]:
        for piece in self._pieces(data):
            self._terminal.feed(piece)
            self._look(now)
            pending = min((shown.time for shown in self._shown.values() if not shown.told), default=now)
            while self._told and self._told[0][0] <= pending:
                yield self._next()

    def finish(self) -> Iterator[Line]:
        for shown in self._shown.values():
            self._tell(shown)
        while self._told:
            yield self._next()

    def _next(self) -> Line:
        time, _, text = heapq.heappop(self._told)
        return Line(time, text)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """So short that no line is gone before it is looked at."""
        screen = self._terminal.screen
        feeds = max(screen.rows // 2, 1) if screen.alternate else FEEDS
        start = count = 0
        longest = FEEDS * screen.columns
        for feed in _FEED.finditer(data):
            count += 1
            if count >= feeds or feed.end() - start > longest:
                yield from _cut(data[start : feed.end()], longest)
                start, count = feed.end(), 0
        yield from _cut(data[start:], longest)

    def _look(self, now: float) -> None:
        screen = self._terminal.screen
        if screen.alternate != self._alternate:
            self._switch(screen.alternate)
        lines, cursor = self._lines(screen)
        texts = set(lines.values())
        were = {shown.text: shown for shown in self._shown.values()}
        for number, shown in list(self._shown.items()):
            new = lines.get(number, "")
            if new != shown.text:
                if not new.startswith(shown.text) and shown.text not in texts:
                    self._tell(shown)
                if not new:
                    del self._shown[number]
        for number, text in lines.items():
            before = self._shown.get(number)
            if before is not None and before.text == text:
                continue
            if moved := were.get(text):
                self._shown[number] = _Shown(text, moved.time, moved.told)
            else:
                shorter = before is not None and before.told and before.text.startswith(text)
                self._shown[number] = _Shown(text, now, shorter)
        for number, shown in self._shown.items():
            if number < screen.home or (number != cursor and now - shown.time > SETTLE):
                self._tell(shown)
        self._forget(screen)

    def _lines(self, screen: Screen) -> tuple[dict[int, str], int]:
        """The text of each line that is not empty, and the number of the one that the cursor is in."""
        lines: dict[int, str] = {}
        parts: list[str] = []
        first = self._from
        cursor = -1
        for number in range(self._from, screen.home + screen.rows):
            row = screen.row(number)
            if number == screen.row_number:
                cursor = first
            if row is not None:
                parts.append(row.text())
                if row.wrapped:
                    continue
                if text := "".join(parts).rstrip():
                    lines[first] = text
                parts.clear()
            first = number + 1
        if text := "".join(parts).rstrip():
            lines[first] = text
        return lines, cursor

    def _switch(self, alternate: bool) -> None:
        for shown in self._shown.values():
            self._tell(shown)
        if alternate:
            self._hidden, self._hidden_from = self._shown, self._from
            self._shown, self._from = {}, 0
        else:
            self._shown, self._from = self._hidden, self._hidden_from
        self._alternate = alternate

    def _forget(self, screen: Screen) -> None:
        """What has scrolled away, but for a line that goes on on the screen."""
        start = screen.home
        while start > self._from and (row := screen.row(start - 1)) is not None and row.wrapped:
            start -= 1
        if start > self._from:
            self._from = start
            for number in [number for number in self._shown if number < start]:
                del self._shown[number]

    def _tell(self, shown: _Shown) -> None:
        if not shown.told:
            shown.told = True
            self._count += 1
            heapq.heappush(self._told, (shown.time, self._count, shown.text))


def _cut(data: bytes, longest: int) -> Iterator[bytes]:
    for part in _AFTER_CLEARING.split(data) if _CLEARING.search(data) else (data,):
        for start in range(0, len(part), longest):
            yield part[start : start + longest]
