"""What of a terminal's output is safe to show to somebody else. What was recorded is hostile.

The filter knows what is harmless and drops the rest, so nothing that is shown can ask the terminal for an answer, set
its title or clipboard, print, write files, or change how its keys work. Sequences are those of ECMA-48 and xterm's
ctlseqs.
"""

import codecs
import re

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x07\x10-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<private>\??)(?P<numbers>[0-9;:]{0,64})(?P<final>[@-~])"
    r"|(?P<escape>\x1b[78DEM]|\x1b[()][0AB])"
    r"|(?P<string>(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f]))"
    r"|(?P<unfinished>(?:(?:\x1b\[|\x9b)[ -?]{0,66}|\x1b[ -/]{0,8})\Z)"
    r"|(?:\x1b\[|\x9b)[ -?]{0,66}[@-~]?"  # any other CSI
    r"|\x1b[ -/]{0,8}[0-~]?"  # any other escape sequence
    r"|."
)
# ST, BEL, CAN, SUB end a string; so does ESC, of what comes next. A newline does too, or one could hide all the rest
_STRING_END = re.compile(r"\x1b\\|[\x07\x18\x1a\x9c\n]|\x1b(?=[^\\])")

_ANY_NUMBERS = frozenset("ABCDEFGHIJKLMPSXZ@`abdefm")  # cursor, erase, insert, delete, scroll, colours
_MODES = {
    "": frozenset("4"),  # insert
    "?": frozenset(("5", "6", "7", "12", "25", "47", "1047", "1048", "1049")),  # looks, margins, cursor, other screen
}
_ALTERNATE = frozenset(("47", "1047", "1049"))
_HUGE = re.compile(r"\d{5}")  # would keep a terminal busy


class Filter:
    """What of the bytes of a terminal's output is safe to show. Keeps its state from one chunk to the next."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._in_string = False
        self._alternate: str | None = None  # number of the mode that switched to the other screen

    def feed(self, data: bytes) -> bytes:
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._skip_string(text, at)
                continue
            token = _TOKEN.match(text, at)
            assert token is not None  # its last branch takes any character
            at = token.end()
            if token["text"] or token["escape"]:
                shown.append(token[0])
            elif token["final"]:
                shown.append(self._control(token["private"], token["numbers"], token["final"]))
            elif token["string"]:
                self._in_string = True
            elif token["unfinished"]:
                self._rest = token[0]
        return "".join(shown).encode("utf-8")

    def reset(self) -> bytes:
        """Leaves the terminal as one wants to find it, wherever the recording stopped."""
        leave = f"\x1b[?{self._alternate}l" if self._alternate else ""
        self._alternate = None
        # the end of scrolling regions and of origin mode moves the cursor, so its place is saved
        return f"{leave}\x1b7\x1b[r\x1b[?6l\x1b8\x1b[4l\x1b[?5l\x1b[?7h\x1b[?25h\x1b(B\x0f\x1b[0m".encode("ascii")

    def _skip_string(self, text: str, at: int) -> int:
        end = _STRING_END.search(text, at)
        if end is None:
            self._rest = "\x1b" if text.endswith("\x1b") else ""
            return len(text)
        self._in_string = False
        return end.start() if end[0] in ("\x1b", "\n") else end.end()

    def _control(self, private: str, numbers: str, final: str) -> str:
        if _HUGE.search(numbers):
            return ""
        if final in "hl":
            modes = [mode for mode in numbers.split(";") if mode in _MODES[private]]
            for mode in modes:
                if private and mode in _ALTERNATE:
                    self._alternate = mode if final == "h" else None
            return f"\x1b[{private}{';'.join(modes)}{final}" if modes else ""
        if private or final not in _ANY_NUMBERS | {"r", "s", "u", "T"}:
            return ""
        if final in "suT" and not (final == "T" and numbers.isdigit()) and numbers:
            return ""  # with more numbers: margins, keyboard protocol, mouse highlighting
        return f"\x1b[{numbers}{final}"
