"""Keystrokes and screen of one terminal session -> the commands that were run. Pure and synchronous.

The screen is the truth: the keys only tell where and when a line was entered, and confirm it. Output is applied to the
screen no earlier than something depends on it: at a key, or when it has to show what became of a line. Of output that
nothing depends on, only the end is looked at.
"""

from collections import deque

from bastion.commands.cooked import CookedLines
from bastion.commands.editor import LineEditor
from bastion.commands.keys import PASTE_BEGINS, PASTE_ENDS, Keys
from bastion.commands.multiplexer import Panes, starts_multiplexer
from bastion.commands.prompts import Prompts
from bastion.commands.reading import Reader
from bastion.commands.records import Records
from bastion.commands.terminal import ALTERNATE_SCREEN, BRACKETED_PASTE, CURSOR_KEYS, Terminal
from bastion.model import Command

FLOOD = 32_768  # bytes of output that wait to be looked at
TAIL = 16_384  # bytes of them that are left when there are more, and nothing depends on them
BUDGET = 131_072  # bytes that are looked at after a key, as long as something depends on them
FULL_SCREEN = 32_768  # bytes on the alternate screen after which it is no terminal multiplexer's


class Detector:
    """Feed it what was typed and printed, in order; `take()` what was run. All times in seconds, on one clock.

    The size is in characters. A command is `degraded` where output before it was left out that may have shown another.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self._terminal = Terminal(columns, rows, self)
        screen = self._terminal.screen
        self._prompts = Prompts()
        reader = Reader(screen, self._prompts)
        self._screen = screen
        self._records = Records(reader)
        self._editor = LineEditor(screen, reader, self._prompts, self._records)
        self._cooked = CookedLines(screen, reader, self._prompts, self._records, self._editor)
        self._panes = Panes(screen, self._prompts, self._records)
        self._keys = Keys()
        self._waiting: deque[bytes] = deque()  # output that was not applied yet
        self._size = 0  # bytes of it
        self._budget = BUDGET
        self._at = 0.0  # of what happens now
        self._keypad_editor = False  # a line editor that shows itself by DECCKM only: zsh without bracketed paste
        self._multiplexed = False  # the alternate screen is tmux's or screen's
        self._alternate_bytes = 0
        self._skimming = False  # nothing on the screen is of interest until the alternate screen ends

    @property
    def pending(self) -> bool:
        """Output that comes now may tell what became of what was typed: it is not just left out."""
        return self._depends()

    @property
    def waiting(self) -> bool:
        """There are commands that may be complete in a while, though nothing happens."""
        return self._records.waiting

    def input(self, at: float, data: bytes) -> None:
        """What the user's terminal sent."""
        self._apply()
        self._at = at
        self._budget = BUDGET
        first = True
        for key in self._keys.feed(data):
            self._key(key, first=first)
            first = False

    def output(self, at: float, data: bytes) -> None:
        """What the program printed."""
        self._at = at
        self._waiting.append(data)
        self._size += len(data)
        if self._size > FLOOD:
            self._relieve()

    def resize(self, at: float, columns: int, rows: int) -> None:
        """The terminal has another size, in characters."""
        self._apply()
        self._at = at
        self._screen.resize(columns, rows)

    def take(self, at: float) -> list[Command]:
        """The commands that are certain at this time and were not taken before."""
        if self._depends() or self._records.due(at):
            self._apply()
        return self._records.take(at, self._screen.before_cursor()[0])

    def finish(self) -> list[Command]:
        """The session is over: all commands that were not taken before."""
        self._apply()
        self._panes.resolve()
        self._records.expansion_shown()
        return self._records.finish("" if self._screen.alternate else self._screen.before_cursor()[0])

    def _depends(self) -> bool:
        """What is printed now may tell what became of what was typed."""
        return self._editor.busy or self._cooked.busy or self._panes.busy or self._records.expansion.pending

    def lose(self) -> None:
        """Something was not fed: what was typed until now is given up, and the next command is `degraded`."""
        self._editor.clear()
        self._cooked.clear()
        self._panes.clear()
        self._records.degraded = True

    def _relieve(self) -> None:
        """More output than is to wait."""
        if self._skimming:
            self._apply()
            return
        if self._depends() and self._budget > 0:
            data = b"".join(self._waiting)
            self._waiting = deque([data[: self._budget]])
            rest = data[self._budget :]
            self._budget -= len(self._waiting[0])
            self._apply()
            self._waiting, self._size = deque([rest] if rest else []), len(rest)
            if self._size <= FLOOD:
                return
        if self._depends():
            self.lose()
        self._skip()

    def _skip(self) -> None:
        """Of what waits, only the tail is looked at."""
        skipped = 0
        while self._size - len(self._waiting[0]) >= TAIL:
            data = self._waiting.popleft()
            self._size -= len(data)
            skipped += len(data)
            self._terminal.skim(data)
        first = self._waiting.popleft()
        newline = first.find(b"\n", max(0, self._size - TAIL))
        cut = newline if newline >= 0 else max(0, self._size - TAIL)
        if cut or skipped:
            self._terminal.skim(first[:cut])
            first = self._terminal.resume() + first[cut:]
        self._waiting.appendleft(first)
        self._size = sum(map(len, self._waiting))

    def _apply(self) -> None:
        if not self._waiting:
            return
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        if self._skimming:
            self._terminal.skim(data)
            return
        self._terminal.feed(data)
        self._hide_secrets(self._screen.before_cursor()[0])
        if self._screen.alternate and not self._multiplexed:
            self._alternate_bytes += len(data)
            if self._panes.shows_status_line():
                self._multiplexed = True
            elif self._alternate_bytes > FULL_SCREEN:
                self._skimming = True

    def _key(self, key: bytes, *, first: bool) -> None:
        if self._screen.alternate:
            if self._multiplexed:
                self._panes.key(key, self._at)
        elif self._terminal.bracketed_paste or self._keypad_editor:
            if self._records.expansion.pending:
                self._editor.text_given = self._records.expansion_shown()
            self._editor.key(key, self._at)
        elif not self._terminal.cursor_keys and key not in (PASTE_BEGINS, PASTE_ENDS):
            if self._terminal.addressed:  # a full-screen program without an alternate screen, until a prompt is seen
                if not self._prompts.is_prompt(self._screen.before_cursor()[0]):
                    return
                self._terminal.addressed = False
                self._cooked.clear()
            self._cooked.key(key, self._at, first=first)

    # What the terminal tells, while output is applied.

    def mode_changed(self, mode: int, on: bool) -> None:
        if mode in ALTERNATE_SCREEN:
            self._switched(on)
        elif self._screen.alternate:
            return
        elif mode == BRACKETED_PASTE:
            if on:
                self._editor_begins()
                self._keypad_editor = False
            else:
                self._editor.end(self._at)
        elif mode == CURSOR_KEYS and not self._terminal.bracketed_paste:
            if on and self._screen.before_cursor()[0].strip():
                self._editor_begins()
                self._keypad_editor = True
            elif not on and self._keypad_editor:
                self._keypad_editor = False
                self._editor.end(self._at)

    def line_fed(self) -> None:
        if self._screen.alternate:
            self._panes.resolve()
            return
        shown = self._screen.text(self._screen.row_number)
        self._hide_secrets(shown)
        if self._records.expansion.due(self._screen.row_number):
            self._records.expansion_shown()
        if not (self._terminal.bracketed_paste or self._keypad_editor):
            self._records.rows_apart = self._terminal.asks_position
            self._cooked.line_fed()
            self._hide_secrets(shown)

    def cursor_placed(self) -> None:
        self._panes.resolve()

    def _hide_secrets(self, shown: str) -> None:
        """A password may have been typed before it was asked for, and before the echo was turned off."""
        if self._records.has_tentative:
            self._records.hide_tentative(shown)

    def _editor_begins(self) -> None:
        if self._records.expansion.shown:
            self._editor.text_given = self._records.expansion_shown()
        self._editor.begin(self._cooked.hand_over())

    def _switched(self, alternate: bool) -> None:
        self._keypad_editor = False
        self._editor.leave()
        self._cooked.clear()
        self._panes.clear()
        self._alternate_bytes = 0
        self._skimming = False
        last = self._records.last
        self._multiplexed = alternate and last is not None and starts_multiplexer(last.content)
