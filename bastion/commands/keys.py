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
    """A line as typed, as far as the keys alone say it. Bytes before and after the cursor."""

    __slots__ = (
        "after",
        "at",
        "before",
        "column",
        "earlier",
        "echoed_from",
        "entered",
        "feeds",
        "lost",
        "prompt",
        "quoted",
        "row",
        "simple",
    )

    def __init__(self, at: float = 0.0) -> None:
        self.before = bytearray()
        self.after = bytearray()
        self.simple = True  # only text, backspace, ^U and ^W: the same in every shell, and where none reads
        self.lost = False  # keys alone do not say it: history, completion, a shell's own bindings
        self.quoted = False
        self.entered = False  # Enter was pressed
        self.at = at  # when its first key was; once entered, when Enter was
        self.row: int | None = None  # where its first key was typed, where that is known
        self.column = 0
        self.prompt = ""  # what stood left of it
        self.echoed_from = 0  # the row below which its echo is to be looked for
        self.feeds = 0  # line feeds since it was entered
        self.earlier: str | None = None  # typed before it, if a program has not taken that

    @property
    def typed(self) -> bytes:
        return bytes(self.before + self.after)

    @property
    def text(self) -> str:
        return self.typed.decode("utf-8", "replace")

    @property
    def known_text(self) -> str | None:
        """What was typed, None where keys alone do not say it."""
        return self.text if self.simple else None

    @property
    def edited_text(self) -> str | None:
        """The same, also where the cursor was moved in it: what a line editor makes of it that binds the usual keys."""
        return None if self.lost else self.text

    def key(self, key: bytes) -> None:
        if self.quoted:  # ^V: the next key is text, whatever it is
            self.quoted = False
            self.insert(key)
        elif key == b"\x16":
            self.quoted, self.simple = True, False
        elif key[0] >= 0x20 and key != b"\x7f":
            self.insert(key)
        elif key in (b"\x7f", b"\x08"):
            _pop_character(self.before)
        elif key == b"\x15" and not self.after:
            self.before.clear()
        elif key == b"\x17":
            self.before = bytearray(_LAST_WORD.sub(b"", bytes(self.before)))
        elif key in _EDITING:
            self.simple = False
            self._edit(_EDITING[key])
        elif key not in (PASTE_BEGINS, PASTE_ENDS):
            self.lose()

    def insert(self, text: bytes) -> None:
        self.before += text
        if len(self.before) + len(self.after) > MAX_LINE:
            self.lose()
            del self.before[MAX_LINE - len(self.after) :]

    def _edit(self, what: str) -> None:
        match what:
            case "left":
                self.after[:0] = _pop_character(self.before)
            case "right" | "end" if not self.after:
                self.lose()  # fish, and a plugin of zsh, take the rest of what they suggest
            case "right":
                self.before += _shift_character(self.after)
            case "home":
                self.after[:0] = self.before
                self.before.clear()
            case "end":
                self.before += self.after
                self.after.clear()
            case "delete":
                _shift_character(self.after)
            case "kill":
                self.after.clear()

    def divide(self) -> None:
        """What was typed until now may be no part of it."""
        self.earlier = ((self.earlier or "") + self.text)[-MAX_LINE:]
        self.before.clear()
        self.after.clear()

    def lose(self) -> None:
        """Keys alone do not say any more what the line is."""
        self.simple = False
        self.lost = True


_EDITING = {
    key: what
    for what, keys in {
        "left": (b"\x1b[D", b"\x1bOD", b"\x02"),
        "right": (b"\x1b[C", b"\x1bOC", b"\x06"),
        "home": (b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x01"),
        "end": (b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x05"),
        "delete": (b"\x1b[3~", b"\x04"),
        "kill": (b"\x0b",),
    }.items()
    for key in keys
}


def _pop_character(text: bytearray) -> bytes:
    """Takes the last character, which may be of several bytes."""
    start = len(text)
    while start > 0:
        start -= 1
        if text[start] & 0xC0 != 0x80:
            break
    character = bytes(text[start:])
    del text[start:]
    return character


def _shift_character(text: bytearray) -> bytes:
    """Takes the first character."""
    end = min(1, len(text))
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    character = bytes(text[:end])
    del text[:end]
    return character
