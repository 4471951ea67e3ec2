"""Plays a recording on a viewer's terminal: at its speed, with pauses and jumps, and while it grows."""

import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from bastion.model import Stream
from bastion.recording.asciicast import Code, Event, Reader
from bastion.recording.escapes import Filter
from bastion.recording.position import format_position

JUMP = 5.0  # seconds that an arrow key jumps
SLOWEST, FASTEST = 1 / 16, 64.0
POLL = 0.05  # seconds between two looks at a recording that may grow
ASK = 5.0  # seconds between two questions whether the session still goes on
TICK = 1.0  # seconds after which the viewer sees the time go on
LAG = 1.0  # seconds that a slow viewer may be behind before the time waits for them
SIZE = re.compile(rb"([1-9]\d{0,3})x([1-9]\d{0,3})")


class Viewer(Protocol):
    """The terminal on which a recording is shown, and the keys of whoever looks at it."""

    def write(self, data: bytes) -> None:
        """Show what went through the filter."""

    def key(self, seconds: float) -> str | None:
        """The next key, as a character or `left` and `right`; None where none came within that time."""

    def resize(self, columns: int, rows: int) -> None:
        """The recorded terminal has this size from here on."""

    def tell(self, state: str) -> None:
        """Say where we are, beside the screen."""


class Player:
    """Plays one recording once.

    `open_reader` opens it anew for each jump back. A pause lasts at most `idle_limit` seconds. `goes_on` is asked at
    the end of a recording whether its session still runs, so that more is to be waited for. `marks` are the places, in
    seconds and ascending, that the keys n and p jump to; it is asked for them at each.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        viewer: Viewer,
        *,
        speed: float = 1.0,
        idle_limit: float | None = None,
        goes_on: Callable[[], bool] = lambda: False,
        marks: Callable[[], Sequence[float]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_reader
        self._viewer = viewer
        self._speed = speed
        self._idle_limit = idle_limit
        self._goes_on = goes_on
        self._marks = marks
        self._clock = clock
        self._paused = False
        self._left = False  # by the viewer
        self._live = False  # all that is there has been shown
        self._ended = False
        self._asked = float("-inf")
        self._filters = {Stream.OUTPUT: Filter(), Stream.ERROR: Filter()}

    def play(self, at: float = 0.0) -> str | None:
        """Show it from `at` on: as the screen was then, then as fast as it was, `speed` times.

        Returns a sentence if the recording is cut short, as a crash leaves it. Raises RecordingError, OSError. The
        terminal is reset also when it is interrupted.
        """
        try:
            self._begin()
            self._seek(at)
            while not self._left:
                self._viewer.tell(self._state())
                event = self._peek()
                if event is not None:
                    self._wait_for(event)
                elif not self._wait_for_more():
                    break
        finally:
            self._viewer.write(self._filters[Stream.OUTPUT].reset())
        return self._reader.truncated

    def _begin(self) -> None:
        self._reader = self._open()
        self._next: Event | None = None
        self._position = 0.0  # seconds in the recording, at
        self._since = self._clock()
        self._size = ""
        if self._reader.header.terminal:
            self._resize(self._reader.header.columns, self._reader.header.rows)

    def _peek(self) -> Event | None:
        """The next event that is shown."""
        while self._next is None:
            event = self._reader.read()
            if event is None:
                return None
            if event.stream in self._filters or event.code in (Code.RESIZE, Code.END):
                self._next = event
        return self._next

    def _pause_before(self, event: Event) -> float:
        """Seconds of the recording from `_position` on that are played before `event`."""
        pause = max(event.time - self._position, 0.0)
        return pause if self._idle_limit is None else min(pause, self._idle_limit)

    def _wait_for(self, event: Event) -> None:
        if self._live:  # it has just happened
            self._live = False
            self._position, self._since = max(self._position, event.time), self._clock()
        due = self._since + self._pause_before(event) / self._speed
        left = TICK if self._paused else max(due - self._clock(), 0.0)
        key = self._viewer.key(min(left, TICK))
        if key is not None:
            self._press(key)
        elif not self._paused and left <= TICK:
            self._show(event)
            self._since = max(due, self._clock() - LAG)

    def _wait_for_more(self) -> bool:
        """False where nothing more is to come. Who has paused may still go back."""
        if self._paused:
            if (key := self._viewer.key(TICK)) is not None:
                self._press(key)
            return True
        if self._ended:
            return False
        if self._clock() - self._asked >= ASK:
            if not self._goes_on():
                return self._peek() is not None  # it may have come between
            self._asked = self._clock()
        self._live = True
        key = self._viewer.key(POLL)
        if key is not None:
            self._press(key)
        return True

    def _show(self, event: Event) -> None:
        self._next = None
        self._position = max(self._position, event.time)
        if event.stream in self._filters:
            self._viewer.write(self._filters[event.stream].feed(event.data))
        elif event.code == Code.RESIZE and (size := SIZE.fullmatch(event.data)):
            self._resize(int(size[1]), int(size[2]))
        elif event.code == Code.END:
            self._ended = True

    def _resize(self, columns: int, rows: int) -> None:
        self._size = f"  {columns}x{rows}"
        self._viewer.resize(columns, rows)

    def _here(self) -> float:
        """Seconds in the recording, now."""
        if self._paused or self._next is None:
            return self._position
        gone = (self._clock() - self._since) * self._speed
        return self._position + min(gone, self._pause_before(self._next))

    def _state(self) -> str:
        speed = "" if self._speed == 1 else f"  {self._speed:g}x"
        paused = "  paused" if self._paused else "  live" if self._live else ""
        return format_position(int(self._here())).partition(".")[0] + speed + self._size + paused

    def _press(self, key: str) -> None:
        self._position, self._since = self._here(), self._clock()
        match key:
            case " ":
                self._paused = not self._paused
            case ".":
                self._paused = True
                if (event := self._peek()) is not None:
                    self._show(event)
            case "right":
                self._seek(self._position + JUMP)
            case "left":
                self._seek(max(self._position - JUMP, 0.0))
            case "n":
                marks = self._marks()
                after = bisect_right(marks, self._position)
                self._seek(marks[after] if after < len(marks) else self._position)
            case "p":
                marks = self._marks()
                moment = 0.0 if self._paused else self._speed  # or one could not get past a mark while it plays
                before = bisect_left(marks, self._position - moment)
                self._seek(marks[before - 1] if before else 0.0)
            case "+":
                self._speed = min(self._speed * 2, FASTEST)
            case "-":
                self._speed = max(self._speed / 2, SLOWEST)
            case "q":
                self._left = True

    def _seek(self, position: float) -> None:
        """Show all that was shown until then at once; to go back, from the beginning."""
        if position < self._position:
            self._viewer.write(self._filters[Stream.OUTPUT].reset() + b"\x1b[H\x1b[2J")
            self._filters = {stream: Filter() for stream in self._filters}
            self._ended = False
            self._begin()
        while (event := self._peek()) is not None and event.time <= position:
            self._show(event)
        if event is not None:
            self._position = max(self._position, position)
        self._live = False
        self._since = self._clock()


def entered(reader: Reader) -> list[float]:
    """When Enter was typed, for who wants to go from one command to the next and has no list of them."""
    return [event.time for event in reader if event.code == Code.INPUT and (b"\r" in event.data or b"\n" in event.data)]
