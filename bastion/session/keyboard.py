"""What a terminal sends, as keys. Pure: bytes in, split in any way; keys out."""

import re
from enum import Enum, auto


class Key(Enum):
    """A key that does something; one that types a character is that character."""

    UP = auto()
    DOWN = auto()
    PAGE_UP = auto()
    PAGE_DOWN = auto()
    HOME = auto()
    END = auto()
    BACKSPACE = auto()
    CLEAR = auto()
    ENTER = auto()
    LEAVE = auto()
    OTHER = auto()  # and whatever is no key at all


_ESCAPE = 0x1B
_INCOMPLETE = (0, Key.OTHER)
_CONTROLS = {
    0x03: Key.LEAVE,  # ctrl-C
    0x04: Key.LEAVE,  # ctrl-D
    0x08: Key.BACKSPACE,
    0x0A: Key.ENTER,
    0x0D: Key.ENTER,
    0x0E: Key.DOWN,  # ctrl-N
    0x10: Key.UP,  # ctrl-P
    0x15: Key.CLEAR,  # ctrl-U
    0x7F: Key.BACKSPACE,
}
_LETTERS = {b"A": Key.UP, b"B": Key.DOWN, b"H": Key.HOME, b"F": Key.END}
# `CSI number ~`: VT220, and rxvt's and the Linux console's numbers for Home and End
_NUMBERS = {b"1": Key.HOME, b"7": Key.HOME, b"4": Key.END, b"8": Key.END, b"5": Key.PAGE_UP, b"6": Key.PAGE_DOWN}

# ECMA-48 section 5.4 (CSI), SS3 for the cursor keys in application mode, `CSI [ x` for the Linux console's F1-F5.
# Bounded: what never ends is no key.
_SEQUENCE = re.compile(rb"\x1b(\[\[?|O)([0-?]{0,32})[ -/]{0,32}([@-Z\\-~])")
_PREFIX = re.compile(rb"\x1b(?:(?:\[\[?|O)[0-?]{0,32}[ -/]{0,32})?")


class KeyDecoder:
    """Takes keys off the front of the bytes that were fed, one at a time, so that the rest can be given back."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def rest(self) -> bytes:
        """What was fed and is not yet a key; it is no longer here."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def ready(self) -> bool:
        """Would `next` give a key?"""
        return self._front()[0] > 0

    def next(self) -> Key | str | None:
        """The next key or printable character; None where more bytes have to come first."""
        size, key = self._front()
        del self._buffer[:size]
        return key if size else None

    def _front(self) -> tuple[int, Key | str]:
        """The length of the first key and itself; length 0 where it is not complete."""
        if not self._buffer:
            return _INCOMPLETE
        first = self._buffer[0]
        if first == _ESCAPE:
            return self._sequence()
        if first < 0x20 or first == 0x7F:
            return 1, _CONTROLS.get(first, Key.OTHER)
        return self._character(first)

    def undecided(self) -> bool:
        """After `next` gave None: is there an ESC that is a key by itself unless more comes soon?"""
        return self._buffer.startswith(b"\x1b")

    def decide(self) -> Key | None:
        """Nothing came soon: a lone ESC was the Esc key, and the start of a sequence was none that is known."""
        return Key.LEAVE if self.rest() == b"\x1b" else None

    def _sequence(self) -> tuple[int, Key]:
        if whole := _SEQUENCE.match(self._buffer):
            return whole.end(), _meaning(*whole.groups())
        prefix = _PREFIX.match(self._buffer)
        assert prefix is not None  # it starts with ESC
        if prefix.end() == len(self._buffer):
            return _INCOMPLETE
        if prefix.end() > 1:
            return prefix.end(), Key.OTHER  # broken off: what comes next counts, ctrl-C above all
        following = self._buffer[1]
        if following < 0x20 or following == 0x7F:
            return 1, Key.LEAVE  # Esc, and another key right after it
        return 2, Key.OTHER  # Alt with a character

    def _character(self, first: int) -> tuple[int, Key | str]:
        size = 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)
        try:
            character = self._buffer[:size].decode("utf-8")
        except UnicodeDecodeError as error:
            return _INCOMPLETE if error.reason == "unexpected end of data" else (1, Key.OTHER)
        return size, character if character.isprintable() else Key.OTHER


def _meaning(introducer: bytes, parameters: bytes, final: bytes) -> Key:
    if introducer == b"[[":
        return Key.OTHER
    if final == b"~":
        return _NUMBERS.get(parameters.split(b";")[0], Key.OTHER)
    return _LETTERS.get(final, Key.OTHER)
