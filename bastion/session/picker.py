"""Which of several containers? A picker on the client's terminal, and a list where there is none."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from rich.cells import get_character_cell_size

from bastion.model import Container, ContainerState, Terminal
from bastion.session.keyboard import Key, KeyDecoder

ESCAPE_SECONDS = 0.2  # an ESC with nothing after it for so long is the Esc key; long enough for a packet in two parts
DUMB_TERMINALS = frozenset({"", "dumb", "unknown"})  # no cursor addressing
FILTER_CHARACTERS = 200
PADDED_CELLS = 40  # a column is not made wider than this by one long name
KEYS_AT_A_TIME = 32  # then what they did is drawn, and other sessions have their turn

# The alternate screen leaves the user's scrollback as it was. No autowrap: where the terminal takes a character for
# wider than we do, the line is cut instead of the picture broken.
_ENTER = "\x1b[?1049h\x1b[?7l"
# Cleared before it is left, for terminals that have no alternate screen.
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[H\x1b[J\x1b[?1049l"


class Source(Protocol):
    """The client's input."""

    async def read(self) -> bytes:
        """Some bytes, b"" at the end; a cancelled read loses none."""

    def unread(self, data: bytes) -> None:
        """Put back what was read too far: it comes first at the next read."""


class _View(Protocol):
    opening: str

    @property
    def closing(self) -> str:
        """Leaves the terminal as it was."""

    def press(self, key: Key | str) -> Container | None:
        """The container, once one is chosen."""

    def draw(self, terminal: Terminal) -> str:
        """What has to be written to show the present state."""


async def pick(
    containers: Sequence[Container],
    terminal: Callable[[], Terminal],
    resized: asyncio.Event,
    source: Source,
    write: Callable[[bytes], None],
    drain: Callable[[], Awaitable[None]],
) -> Container | None:
    """The container that the user chooses, always a running one; None where they leave, or the client is gone.

    What was typed after the choice is unread to `source`. `resized` is set by the caller after each change of
    `terminal()`, and cleared here. However this ends, the terminal is as it was before.
    """
    view: _View = (_NumberedList if terminal().term in DUMB_TERMINALS else _Screen)(_in_order(containers))
    keys = KeyDecoder()
    events = _Events(source, resized, keys)
    try:
        write(view.opening.encode())
        while True:
            write(view.draw(terminal()).encode())
            await drain()
            if not await events.more():
                return None
            for _ in range(KEYS_AT_A_TIME):
                if (key := keys.next()) is None:
                    break
                if key is Key.LEAVE:
                    return None
                if (chosen := view.press(key)) is not None:
                    source.unread(keys.rest())
                    return chosen
    except ConnectionError:  # the client is gone
        return None
    finally:
        with contextlib.suppress(ConnectionError):
            write(view.closing.encode())
        await events.close()


class _Events:
    """Waits for the next thing to do. Owns the tasks that wait for input and for a resize."""

    def __init__(self, source: Source, resized: asyncio.Event, keys: KeyDecoder) -> None:
        self._source = source
        self._resized = resized
        self._keys = keys
        self._reading: asyncio.Task[bytes] | None = None
        self._resizing: asyncio.Task[object] | None = None

    async def more(self) -> bool:
        """Return when there may be keys, or a new size; False once the user is gone or has pressed Esc alone."""
        if self._keys.ready():
            await asyncio.sleep(0)  # a flood of keys: other sessions have their turn
            return True
        self._reading = self._reading or asyncio.ensure_future(self._source.read())
        self._resizing = self._resizing or asyncio.ensure_future(self._resized.wait())
        await asyncio.wait(
            {self._reading, self._resizing},
            timeout=ESCAPE_SECONDS if self._keys.undecided() else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._resizing.done():
            self._resizing = None
            self._resized.clear()
        elif not self._reading.done():
            return self._keys.decide() is not Key.LEAVE
        if self._reading.done():
            data = self._reading.result()
            self._reading = None
            self._keys.feed(data)
            return bool(data)
        return True

    async def close(self) -> None:
        tasks = [task for task in (self._reading, self._resizing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listing(containers: Sequence[Container]) -> str:
    """For a session without a terminal: what to do, then address, state and image of each container, a line each."""
    rows = _aligned([(str(one.address), one.state.value, one.image) for one in _in_order(containers)])
    return "".join(
        f"{line}\n" for line in ["Say which container: ssh USER+ADDRESS@..., with one of these addresses:", *rows]
    )


class _Screen:
    """Type to filter, arrows move, Enter chooses. Draws what is visible and no more."""

    opening = _ENTER
    closing = _LEAVE

    def __init__(self, containers: Sequence[Container]) -> None:
        self._containers = containers
        self._rows = _aligned([(str(one.address), one.state.value, one.image, one.name) for one in containers])
        self._haystacks = [f"{one.address}\n{one.name}\n{one.image}".casefold() for one in containers]
        self._filter = ""
        self._matches: Sequence[int] = range(len(containers))
        self._selected = 0  # index into the matches, as is the next
        self._top = 0  # the first that is drawn
        self._height = 1  # rows for containers when last drawn
        self._message = ""

    def press(self, key: Key | str) -> Container | None:
        self._message = ""
        last = max(0, len(self._matches) - 1)
        match key:
            case Key.ENTER:
                return self._choose()
            case Key.UP:
                self._selected = max(0, self._selected - 1)
            case Key.DOWN:
                self._selected = min(last, self._selected + 1)
            case Key.PAGE_UP:
                self._selected = max(0, self._selected - self._height)
            case Key.PAGE_DOWN:
                self._selected = min(last, self._selected + self._height)
            case Key.HOME:
                self._selected = 0
            case Key.END:
                self._selected = last
            case Key.BACKSPACE:
                self._narrow(self._filter[:-1])
            case Key.CLEAR:
                self._narrow("")
            case str():
                self._narrow((self._filter + key)[:FILTER_CHARACTERS])
        return None

    def _choose(self) -> Container | None:
        if not self._matches:
            self._message = "Nothing fits: ctrl-U clears the filter"
            return None
        chosen = self._containers[self._matches[self._selected]]
        if chosen.state is not ContainerState.RUNNING:
            self._message = _not_running(chosen)
            return None
        return chosen

    def _narrow(self, text: str) -> None:
        if text == self._filter:
            return
        self._filter = text
        self._selected = 0
        self._matches = range(len(self._containers))
        for word in text.casefold().split():
            self._matches = [match for match in self._matches if word in self._haystacks[match]]

    def draw(self, terminal: Terminal) -> str:
        columns, rows = terminal.columns or 80, terminal.rows or 24  # 0: not known (RFC 4254 section 6.2)
        with_prompt, with_hint = rows >= 2, rows >= 4
        self._height = max(1, rows - with_prompt - with_hint)
        # the selected one is visible, and no row is left empty that could show one
        self._top = min(self._top, self._selected, max(0, len(self._matches) - self._height))
        self._top = max(self._top, self._selected - self._height + 1)

        label = "container> " if columns >= 40 else "> "[: columns - 1]
        typed = _clip(_escaped(self._filter)[::-1], columns - len(label) - 1)[
            ::-1
        ]  # its end, and a cell for the cursor
        lines = [label + typed] if with_prompt else []
        for position in range(self._top, min(self._top + self._height, len(self._matches))):
            row = self._rows[self._matches[position]]
            line = _clip(("> " if position == self._selected else "  ") + row, columns)
            lines.append(f"\x1b[7m{line}\x1b[0m" if position == self._selected else line)
        if with_hint:
            hint = f"{len(self._matches)} of {len(self._rows)}; type to filter, arrows move, Enter chooses, Esc leaves"
            lines.append(_clip(self._message or hint, columns))
        elif self._message:
            lines[:1] = [_clip(self._message, columns)]

        # each line is erased before it is written: after the last column "erase to the end" would take that one away
        drawn = "".join(f"\x1b[{number};1H\x1b[2K{line}" for number, line in enumerate(lines, 1))
        below = f"\x1b[{len(lines) + 1};1H\x1b[J" if len(lines) < rows else ""
        cursor = 1 + len(label) + _cells(typed) if with_prompt else 1
        return f"\x1b[?25l{drawn}{below}\x1b[1;{cursor}H\x1b[?25h"


class _NumberedList:
    """For terminals that can not move the cursor: all containers once, then a prompt with echo."""

    _PROMPT = "number: "

    def __init__(self, containers: Sequence[Container]) -> None:
        self._containers = containers
        rows = _aligned([(str(one.address), one.state.value, one.image, one.name) for one in containers])
        width = len(str(len(rows)))
        lines = [f"{number:>{width}}  {row}" for number, row in enumerate(rows, 1)]
        self.opening = "\r\n".join(["Which container? Its number and Enter, or ctrl-C to leave.", *lines, self._PROMPT])
        self._digits = ""
        self._echo = ""

    @property
    def closing(self) -> str:
        return f"{self._echo}\r\n"

    def press(self, key: Key | str) -> Container | None:
        if isinstance(key, str):
            if key in "0123456789" and len(self._digits) < 9:
                self._digits += key
                self._echo += key
        elif key is Key.BACKSPACE and self._digits:
            self._digits = self._digits[:-1]
            self._echo += "\b \b"
        elif key is Key.CLEAR:
            self._echo += "\b \b" * len(self._digits)
            self._digits = ""
        elif key is Key.ENTER:
            return self._choose()
        return None

    def _choose(self) -> Container | None:
        number = int(self._digits or 0)
        self._digits = ""
        if 1 <= number <= len(self._containers):
            chosen = self._containers[number - 1]
            if chosen.state is ContainerState.RUNNING:
                return chosen
            message = _not_running(chosen)
        else:
            message = f"A number from 1 to {len(self._containers)}, please."
        self._echo += f"\r\n{message}\r\n{self._PROMPT}"
        return None

    def draw(self, terminal: Terminal) -> str:
        # after a resize there is nothing to draw again
        echo, self._echo = self._echo, ""
        return echo


def _not_running(container: Container) -> str:
    return f"{_escaped(str(container.address))} is {container.state.value} and can not be entered"


def _in_order(containers: Sequence[Container]) -> list[Container]:
    """Those that can be entered first, then by address: web.worker.2 before web.worker.10."""

    def key(one: Container) -> tuple[bool, str, str, str, int, str]:
        at = one.address
        instance = -1 if at.instance is None else at.instance
        return one.state is not ContainerState.RUNNING, at.cluster or "", at.app, at.proc or "", instance, one.name

    return sorted(containers, key=key)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """A line for each row, its texts escaped, columns two spaces apart."""
    escaped = [[_escaped(text) for text in row] for row in rows]
    widths = [min(PADDED_CELLS, max(map(_cells, column))) for column in zip(*escaped, strict=True)]
    return [
        "  ".join(text + " " * (width - _cells(text)) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in escaped
    ]


def _escaped(text: str) -> str:
    """What does not print, or has no cell of its own, as a backslash escape: labels are anybody's."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() and get_character_cell_size(char) else char.encode("unicode_escape").decode()
        for char in text
    )


def _cells(text: str) -> int:
    """The columns that an escaped text takes; wide characters take two."""
    return len(text) if text.isascii() else sum(map(get_character_cell_size, text))


def _clip(text: str, columns: int) -> str:
    """As much of the front of an escaped text as fits."""
    if text.isascii():
        return text[:columns]
    used = 0
    for position, char in enumerate(text):
        used += get_character_cell_size(char)
        if used > columns:
            return text[:position]
    return text
