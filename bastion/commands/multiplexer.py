"""tmux and screen: shells in panes of the alternate screen. The prompt's row is read when Enter is pressed.

What the pane's shell says of its line editor stays inside, so a row with a known prompt is all there is.
"""

import re

from bastion.commands.keys import ENTER
from bastion.commands.prompts import Prompts
from bastion.commands.records import Records
from bastion.commands.screen import Screen

BORDER = "│"
MAX_ROWS = 8  # rows of a pane that a line takes at most

_PANE_PROMPT = re.compile(r"[$#%>\u276f] \Z")
_STATUS_LINE = re.compile(r"\[[^\]]+\] ?\d+:")  # [0] 0:bash*
_STARTED_BY = re.compile(r"(?:^|[;&|]\s*|\b(?:exec|sudo)\s+)\s*(?:\S*/)?(tmux|screen|byobu|zellij)\b")


def starts_multiplexer(command: str) -> bool:
    return _STARTED_BY.search(command) is not None


class Panes:
    def __init__(self, screen: Screen, prompts: Prompts, records: Records) -> None:
        self._screen = screen
        self._prompts = prompts
        self._records = records
        self._entered: tuple[int, int, int, int, float] | None = None
        self._typed_at: tuple[int, int] | None = None  # the row, and where its pane begins

    def shows_status_line(self) -> bool:
        screen = self._screen
        return any(_STATUS_LINE.match(screen.text(screen.home + row)) for row in (screen.rows - 1, 0))

    @property
    def busy(self) -> bool:
        return self._entered is not None

    def clear(self) -> None:
        self._entered = self._typed_at = None

    def key(self, key: bytes, at: float) -> None:
        if key in ENTER:
            self._enter(at)
        elif key[0] >= 0x20 and key != b"\x7f":
            row, left, _ = self._place()
            if (row, left) != self._typed_at:
                self._learn(row, left)
            self._typed_at = (row, left)

    def _learn(self, row: int, left: int) -> None:
        """The first key in a row: what stands left of the cursor, where nothing stands right of it, may be a prompt."""
        shown = self._screen.text(row)[left:].partition(BORDER)[0].rstrip()
        before = self._screen.before_cursor()[0][left:]
        if before.rstrip() == shown and _PANE_PROMPT.search(before):
            self._prompts.learn(before)

    def _place(self) -> tuple[int, int, int]:
        """The row of the cursor, and where its pane begins and how wide it is."""
        screen = self._screen
        shown = screen.text(screen.row_number)
        left = shown[: screen.x + 1].rfind(BORDER) + 1
        right = shown.find(BORDER, left)
        return screen.row_number, left, (right if right >= 0 else screen.columns) - left

    def _enter(self, at: float) -> None:
        """Enter is pressed: the line is read when what it prints moves the cursor away."""
        self.resolve()
        screen = self._screen
        row, left, pane_width = self._place()
        self._typed_at = None
        first = row
        length = self._prompts.match(self._segment(row, left, pane_width).rstrip() + " ")
        while length is None and first > screen.home and row - first < MAX_ROWS:
            above = self._segment(first - 1, left, pane_width)
            if len(above.rstrip()) < pane_width:
                break
            first -= 1
            length = self._prompts.match(above)
        self._entered = (first, length, left, pane_width, at) if length is not None else None

    def resolve(self) -> None:
        """The line that was entered is as complete as it will be."""
        if self._entered is None:
            return
        (first, length, left, pane_width, at), self._entered = self._entered, None
        last = self._screen.row_number
        if last < first:
            return
        text = "".join(self._segment(row, left, pane_width) for row in range(first, last)) + (
            self._segment(last, left, pane_width).rstrip() + " "
        )
        prompt, body = text[:length], text[length:].strip()
        if body:
            self._records.pane_command(body, at=at, prompt=prompt)

    def _segment(self, row: int, left: int, pane_width: int) -> str:
        return self._screen.text(row)[left : left + pane_width]
