"""What a program prints, applied to a screen (ECMA-48, xterm's ctlseqs, DEC VT510)."""

import re
from collections.abc import Callable
from typing import Protocol

from bastion.commands.screen import Screen
from bastion.commands.sequences import CSI, ESCAPE, Tokens

ALTERNATE_SCREEN = frozenset({47, 1047, 1049})
BRACKETED_PASTE = 2004
CURSOR_KEYS = 1

# of modes that matter, alone or among others; or a reset
MODE_CHANGE = re.compile(rb"\x1b\[\?((?:\d{1,4};){0,4}(?:1|7|47|1047|1049|2004)(?:;\d{1,4}){0,4})([hl])|\x1bc")
LONGEST_MODE_CHANGE = 48  # bytes


MODES_KEPT = 64  # changes of modes that are kept of output that is skipped


def mode_changes(data: bytes) -> bytes:
    """Of output that is skipped, the last changes of modes that matter."""
    if b"\x1b" not in data:
        return b""
    return b"".join([change[0] for change in MODE_CHANGE.finditer(data)][-MODES_KEPT:])


class Observer(Protocol):
    """Is told of what happens on the screen, in order, while it happens."""

    def mode_changed(self, mode: int, on: bool) -> None: ...
    def line_fed(self) -> None: ...
    def cursor_placed(self) -> None: ...


class Terminal:
    """Feed it all output: `screen` is what is seen then."""

    def __init__(self, columns: int, rows: int, observer: Observer) -> None:
        self.screen = Screen(columns, rows)
        self.cursor_keys = False  # DECCKM: of full-screen programs, and of line editors without bracketed paste
        self.bracketed_paste = False
        self.asks_position = False  # where its cursor is: busybox ash does at each prompt
        self.addressed = False  # the cursor was put on a row by its number
        self._observer = observer
        self._tokens = Tokens()
        self._last = " "
        self._edge = b""  # the end of what was skimmed

    def feed(self, data: bytes) -> None:
        screen = self.screen
        for token in self._tokens.feed(data):
            text = token[0]
            first = text[0]
            if first >= " " and not "\x7f" <= first <= "\x9f":
                self._last = text[-1]
                screen.put(text)
            elif text == "\r\n":
                screen.carriage_return()
                self._line_feed()
            elif token[CSI] is not None:
                self._control(token[1], token[2], token[CSI])
            elif token[ESCAPE] is not None:
                self._escape(token[ESCAPE])
            else:
                self._control_character(first)

    def skim(self, data: bytes) -> None:
        """Output that is not shown: no more than the modes that it sets. What is shown next begins a row."""
        skimmed = self._edge + data
        start = 0
        if b"\x1b" in skimmed and (b"\x1b[?" in skimmed or b"\x1bc" in skimmed):
            for change in MODE_CHANGE.finditer(skimmed):
                start = change.end()
                if change[2] is None:
                    self._reset()
                else:
                    self._set_modes(change[1].decode(), change[2] == b"h")
        self._edge = skimmed[max(start, len(skimmed) - LONGEST_MODE_CHANGE) :]

    def resume(self) -> bytes:
        """After skim(): what of the skimmed output has to be fed yet."""
        self._tokens.restart()
        self.screen.skip()
        edge, self._edge = self._edge, b""
        escape = edge.rfind(b"\x1b")
        return edge[escape:] if escape >= 0 else b""

    def _set_mode(self, mode: int, on: bool) -> None:
        """DECSET and DECRST."""
        if mode in ALTERNATE_SCREEN:
            self.screen.show_alternate(on)
        elif mode == CURSOR_KEYS:
            self.cursor_keys = on
        elif mode == 7:
            self.screen.autowrap = on
        elif mode == BRACKETED_PASTE:
            self.bracketed_paste = on
            self.asks_position = False
        self._observer.mode_changed(mode, on)

    def _set_modes(self, parameters: str, on: bool) -> None:
        for number in parameters.split(";")[:16]:
            self._set_mode(_number(number), on)

    def _reset(self) -> None:
        """RIS: what the line editor has said of itself stands."""
        if self.screen.alternate:
            self._set_mode(1049, False)
        self.screen.reset()
        self.cursor_keys = False

    def _line_feed(self) -> None:
        self._observer.line_fed()
        self.screen.index()

    def _control_character(self, character: str) -> None:
        screen = self.screen
        match character:
            case "\n" | "\x0b" | "\x0c":
                self._line_feed()
            case "\r":
                screen.carriage_return()
            case "\b":
                screen.move_to(x=screen.x - 1)
            case "\t":
                screen.move_to(x=(screen.x // 8 + 1) * 8)

    def _escape(self, rest: str) -> None:
        match rest:
            case "7":
                self.screen.save_cursor()
            case "8":
                self.screen.restore_cursor()
            case "D":
                self._line_feed()
            case "E":
                self.screen.carriage_return()
                self._line_feed()
            case "M":
                self.screen.reverse_index()
            case "c":
                self._reset()

    def _control(self, parameters: str, intermediates: str, final: str) -> None:
        if final == "m" or intermediates:
            return
        if parameters[:1] in ("?", "<", "=", ">"):
            if parameters[0] == "?" and final in "hl":
                self._set_modes(parameters[1:], final == "h")
            return
        numbers = [_number(part) for part in parameters.split(";")[:16]]
        match final:
            case "H" | "f":
                self._place(numbers[0] or 1, (numbers[1] if len(numbers) > 1 else 1) or 1)
            case "b":  # REP
                self.screen.put(self._last * min(numbers[0] or 1, 2 * self.screen.columns))
            case "h" | "l":
                if 4 in numbers:
                    self.screen.insert = final == "h"
            case "r":
                self._set_region(numbers[0] or 1, (numbers[1] if len(numbers) > 1 else 0) or self.screen.rows)
            case "J" | "K":
                (self.screen.erase_display if final == "J" else self.screen.erase_line)(numbers[0])
            case _ if final in _COUNTED:
                if final == "B" and not self.screen.alternate:  # as zsh may leave its line
                    self._observer.line_fed()
                _COUNTED[final](self.screen, numbers[0] or 1)
            case "n" if numbers[0] == 6:
                self.asks_position = True

    def _set_region(self, top: int, bottom: int) -> None:
        """DECSTBM: from 1."""
        if self.screen.alternate:
            self._observer.cursor_placed()
        self.screen.set_region(top - 1, bottom - 1)

    def _place(self, row: int, column: int) -> None:
        """CUP: from 1."""
        if row > 1:
            self.addressed = True
        if self.screen.alternate and min(self.screen.rows, row) - 1 != self.screen.y:
            self._observer.cursor_placed()
        self.screen.move_to(column - 1, row - 1)


def _number(digits: str) -> int:
    """A parameter: one that is absent or no number is 0, one that is absurdly large as good as the largest."""
    return min(int(digits[:9]), 99_999) if digits.isdigit() and digits.isascii() else 0


# Control sequences whose one parameter is a number, 1 by default.
_COUNTED: dict[str, Callable[[Screen, int], None]] = {
    "@": Screen.insert_cells,
    "A": Screen.up,
    "B": Screen.down,
    "C": lambda screen, n: screen.move_to(x=screen.x + n),
    "D": lambda screen, n: screen.move_to(x=screen.x - n),
    "E": lambda screen, n: screen.move_to(0, screen.y + n),
    "F": lambda screen, n: screen.move_to(0, screen.y - n),
    "G": lambda screen, n: screen.move_to(x=n - 1),
    "L": Screen.insert_rows,
    "M": Screen.delete_rows,
    "P": Screen.delete_cells,
    "S": Screen.scroll_up,
    "T": Screen.scroll_down,
    "X": lambda screen, n: screen.erase_cells(screen.x, screen.x + n),
    "`": lambda screen, n: screen.move_to(x=n - 1),
    "a": lambda screen, n: screen.move_to(x=screen.x + n),
    "d": lambda screen, n: screen.move_to(y=n - 1),
    "e": Screen.down,
    "s": lambda screen, _: screen.save_cursor(),
    "u": lambda screen, _: screen.restore_cursor(),
}
