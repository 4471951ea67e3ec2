"""What a user's terminal sends: keys, without its answers to programs. And the line that keys make, where that is sure.

The keys never say what was run: history, completion and the shell's own bindings are not in them. They say when and
where a line was entered, and confirm what the screen shows.
"""

import re
from collections.abc import Iterator

MAX_LINE = 16_384  # bytes of a typed line that are kept
MAX_HELD = 4096  # bytes of a terminal's answer that wait for its rest

ENTER = frozenset({b"\r", b"\n"})
ENTER_AND_NEXT = b"\x0f"  # ^O of readline and zsh: run it, and fetch the next line of the history
INTERRUPT = frozenset({b"\x03", b"\x1c"})  # ^C, ^\
SUSPEND = b"\x1a"
END_OF_FILE = b"\x04"
PASTE_BEGINS, PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"

# Cursor position, device attributes, status, modes, colours (OSC), strings (DCS), focus, mouse: no keys.
_ANSWER = re.compile(
    rb"\x1b\[\d+;\d+R|\x1b\[\?[\d;]*\$?[cnuyR]|\x1b\[\??\d+n|\x1b\[[>=][\d;]*c|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[IO]"
    rb"|\x1bP[^\x1b]*\x1b\\|\x1b\[<[\d;]*[mM]"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*|\][^\x07\x1b]*\x1b?|P[^\x1b]*\x1b?)\Z")
_KEY = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b[^\x1b\[O]|\x1b|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f\x1b]+", re.DOTALL
)
_LAST_WORD = re.compile(rb"\S+\s*\Z")


class Keys:
    """Cuts input into keys, whatever the pieces are that it comes in: text, a control character, an escape sequence."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data
        self._rest = b""
        if b"\x1b" in data:
            unfinished = _UNFINISHED.search(data, max(0, len(data) - MAX_HELD))
            if unfinished:
                self._rest, data = data[unfinished.start() :], data[: unfinished.start()]
            data = _ANSWER.sub(b"", data)
        for key in _KEY.finditer(data):
            yield key[0]


class TypedLine:
    """A line as typed. `simple` as long as keys alone say what it is: text, backspace, ^U and ^W."""

    __slots__ = ("at", "column", "echoed_from", "entered", "feeds", "prompt", "row", "simple", "typed")

    def __init__(self, at: float = 0.0) -> None:
        self.typed = bytearray()
        self.simple = True
        self.entered = False  # Enter was pressed
        self.at = at  # when its first key was; once entered, when Enter was
        self.row: int | None = None  # where its first key was typed, where that is known
        self.column = 0
        self.prompt = ""  # what stood left of it
        self.echoed_from = 0  # the row below which its echo is to be looked for
        self.feeds = 0  # line feeds since it was entered

    @property
    def text(self) -> str:
        return self.typed.decode("utf-8", "replace")

    @property
    def known_text(self) -> str | None:
        """What was typed, None where keys alone do not say it."""
        return self.text if self.simple else None

    def key(self, key: bytes) -> None:
        if key[0] >= 0x20 and key != b"\x7f":
            self.typed += key
            if len(self.typed) > MAX_LINE:
                self.simple = False
                del self.typed[MAX_LINE:]
        elif key in (b"\x7f", b"\x08"):
            self._backspace()
        elif key == b"\x15":
            self.typed.clear()
        elif key == b"\x17":
            self.typed = bytearray(_LAST_WORD.sub(b"", bytes(self.typed)))
        elif key not in (PASTE_BEGINS, PASTE_ENDS):
            self.simple = False

    def _backspace(self) -> None:
        """Takes a character, which may be of several bytes."""
        while self.typed and self.typed.pop() & 0xC0 == 0x80:
            pass
