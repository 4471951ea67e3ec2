"""The terminal of whoever looks at a recording: what is shown on it, its keys, and what the player has to say."""

import os
import re
import select
import sys
import termios
import time
import tty
from typing import Any, Self

from bastion.errors import printable

_KEY = re.compile(r"\x1b[\[O][0-9;]*([A-Za-z~])|.", re.DOTALL)
_ARROWS = {"C": "right", "D": "left"}


class Tty:
    """Standard output, and the keys of standard input where both are terminals; `name` is what the title begins with.

    What is shown is `raw` if it was written to a terminal: then its newlines are as the program meant them. The
    terminal's modes, title and size are at the end what they were.
    """

    def __init__(self, name: str, *, raw: bool) -> None:
        self._raw = raw
        self._name = printable(name)
        self._out = sys.stdout.buffer
        self._terminal = sys.stdout.isatty()
        self._keyboard = sys.stdin.fileno() if self._terminal and sys.stdin.isatty() else None
        self._modes: list[Any] = []
        self._typed: list[str] = []
        self._told = ""

    def __enter__(self) -> Self:
        if self._terminal:
            self._before = os.get_terminal_size(self._out.fileno())
            self._out.write(b"\x1b[22;2t")  # the title as it was
            self._modes = termios.tcgetattr(self._out.fileno())
            modes = termios.tcgetattr(self._out.fileno())
            if self._raw:
                modes[tty.OFLAG] &= ~termios.OPOST
            if self._keyboard is not None:
                modes[tty.LFLAG] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._out.fileno(), termios.TCSADRAIN, modes)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self.resize(self._before.columns, self._before.lines)
            self.write(b"\x1b[23;2t\r\n")
            self._out.flush()
            termios.tcsetattr(self._out.fileno(), termios.TCSADRAIN, self._modes)

    def write(self, data: bytes) -> None:
        self._out.write(data)

    def key(self, seconds: float) -> str | None:
        self._out.flush()
        if self._typed:
            return self._typed.pop(0)
        if self._keyboard is None:
            time.sleep(seconds)
            return None
        if not select.select([self._keyboard], [], [], seconds)[0]:
            return None
        typed = os.read(self._keyboard, 1024).decode("ascii", "replace")
        if not typed:  # the terminal was closed
            return "q"
        self._typed = [_ARROWS.get(key[1], "") if key[1] else key[0] for key in _KEY.finditer(typed)]
        return self._typed.pop(0)

    def resize(self, columns: int, rows: int) -> None:
        """A terminal that lets itself be resized is; the title says the size to others."""
        if self._terminal and os.get_terminal_size(self._out.fileno()) != (columns, rows):
            self._out.write(f"\x1b[8;{rows};{columns}t".encode("ascii"))

    def tell(self, state: str) -> None:
        if self._terminal and state != self._told:
            self._told = state
            self._out.write(f"\x1b]2;{self._name}  {state}\x1b\\".encode())
