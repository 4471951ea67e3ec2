"""What may be recorded of the keys typed on a terminal: only what the terminal showed as typed. In doubt, masked.

A recording is written ahead, and whether a key echoes is known only later. So text is announced as PASSED_ON before it
reaches the program, with the text withheld, and told later: as INPUT if it was echoed, as REDACTED if not.

The unit is a run: contiguous text, with its backspaces, between control characters or pauses. It counts as echoed only
if each of its characters is the next thing printed at the place of the cursor where it was typed; one that is not masks
the entire run. So letters of a password that some program prints by chance unmask nothing, and neither the length of
what is masked nor the time of its keys can be read from the events. Control characters and complete escape sequences
are no secret, and wait only to keep their order.

Pure: no clock, no file. Works on text with surrogate escapes.
"""

import re
import unicodedata
from dataclasses import dataclass

from bastion.recording.asciicast import WITHHELD, Code, text_of

SETTLE = 2.0  # seconds without a key after which what was not echoed will not be
MAX_PENDING = 4096  # characters that wait for their echo
MAX_SCAN = 4096  # pieces of output looked through for the echo of a run

Told = tuple[Code, str]

_BACKSPACES = "\x08\x7f"
_INPUT = re.compile(
    r"(?P<text>[^\x00-\x07\x09-\x1f]+)"
    r"|\x1b\[[0-9;?<]{0,16}[A-Za-z~]"  # CSI: arrows, function keys, bracketed paste, mouse
    r"|\x1bO[A-DFHP-S]"  # SS3: arrows and F1 to F4 in application mode
    r"|\x1b[A-NP-Za-z.]"  # Alt and a key
    r"|[\x00-\x07\x09-\x1f]"
)
_OUTPUT = re.compile(
    r"\x1b\[(?P<count>\d{0,4})(?P<move>[CD])"
    r"|(?P<back>\x08(?: \x08)?)"
    # what leaves the cursor where it is: colours, erasing, inserting and deleting, modes, titles, character sets; and
    # how readline goes over the right margin
    r"|(?P<noise>\x1b\[[0-?]*[@JKPXmhl]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[()][0-9A-Z]|\x1b[=>]|[\x00\x07]"
    r"| \r(?=[^\n\r]))"
    r"|(?P<unfinished>\x1b(?:[()]|\[[0-?]*|\][^\x07\x1b\n]*\x1b?)?\Z| \r\Z)"
    r"|(?P<lost>[\x01-\x1f\x7f])"
    r"|(?P<text>.)",
    re.DOTALL,
)
_UNFINISHED = re.compile(r"\x1b(?:[()]|\[[0-?]*|\][^\x07\x1b\n]*\x1b?)?\Z")
_TAIL = 64  # characters of output kept for an escape sequence that is cut in two


@dataclass(slots=True)
class _Run:
    """Withheld text, of which the first `echoed` characters were shown."""

    text: str
    echoed: int = 0
    masked: bool = False

    def extend(self, text: str) -> None:
        """Also puts a character together that was typed in two pieces."""
        self.text = self.text[: self.echoed] + text_of(
            (self.text[self.echoed :] + text).encode("utf-8", "surrogateescape")
        )

    @property
    def awaited(self) -> bool:
        return not self.masked and self.echoed < len(self.text)


class Redactor:
    """Feed it all input and output of one terminal session in order; what it tells belongs into the recording.

    `now` is in seconds, on any clock that does not go back.
    """

    def __init__(self) -> None:
        self._queue: list[_Run | str] = []  # in the order typed; a str is control characters
        self._size = 0  # characters in the queue
        self._last_typed = 0.0
        self._after_newline = False  # Enter was told: what is typed next shows after its newline
        self._place = 0  # of the cursor, in columns from where the awaited character is due
        self._scanned = 0
        self._tail = ""  # the end of the output, not looked through yet

    @property
    def watching(self) -> bool:
        """Whether output is of any interest now."""
        return self._after_newline or (bool(self._queue) and self._awaited() is not None)

    def input(self, now: float, text: str) -> list[Told]:
        """To be on file before `text` is passed on."""
        told = self._settle(now)
        self._last_typed = now
        if self._size + len(text) > MAX_PENDING:
            told += self.finish()
            if len(text) > MAX_PENDING:
                return [*told, (Code.PASSED_ON, WITHHELD), (Code.REDACTED, WITHHELD)]
        announced = ""
        for token in _INPUT.finditer(text):
            if token["text"] is None:
                self._queue.append(token[0])
                self._size += len(token[0])
                announced += token[0]
            elif self._type(token[0]):
                announced += WITHHELD
        told += self._tell()
        if self._queue and announced:
            told.append((Code.PASSED_ON, announced))
        return told

    def output(self, now: float, text: str) -> list[Told]:
        """What this output, already recorded, shows of the input before it."""
        told = self._settle(now)
        if self.watching:
            return told + self._watch(self._tail + text)
        self._tail = text[-_TAIL:] if len(text) >= _TAIL else (self._tail + text)[-_TAIL:]
        return told

    def finish(self) -> list[Told]:
        """What was not echoed until now is masked."""
        for item in self._queue:
            if isinstance(item, _Run) and item.awaited:
                item.masked = True
        told = self._tell(last_too=True)
        self._after_newline = False
        return told

    def _settle(self, now: float) -> list[Told]:
        if (self._queue or self._after_newline) and now - self._last_typed > SETTLE:
            return self.finish()
        return []

    def _type(self, text: str) -> bool:
        """Adds to the last run or begins one; true if it begins one."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Run):
            if not last.masked and not last.awaited:
                self._here()
            before = len(last.text)
            last.extend(text)
            self._size += len(last.text) - before
            return False
        if last is None and not self._after_newline:
            self._here()
        # after any other control character that is still waiting, nobody knows where this would be shown
        known = last is None or last in ("\r", "\n")
        self._queue.append(_Run(text, masked=not known))
        self._size += len(text)
        return True

    def _here(self) -> None:
        """The awaited character is due where the cursor is now."""
        self._place = self._scanned = 0
        unfinished = _UNFINISHED.search(self._tail)
        self._tail = unfinished[0] if unfinished else ""

    def _awaited(self) -> _Run | None:
        head = self._queue[0] if self._queue else None
        return head if isinstance(head, _Run) and head.awaited else None

    def _watch(self, text: str) -> list[Told]:
        told: list[Told] = []
        at = 0
        self._tail = ""
        while at < len(text):
            if self._after_newline:
                at = text.find("\n", at) + 1
                if not at:
                    break
                self._after_newline = False
                self._place = self._scanned = 0
                continue
            run = self._awaited()
            if run is None:
                self._tail = text[max(at, len(text) - _TAIL) :]
                break
            token = _OUTPUT.match(text, at)
            assert token is not None  # its last branch takes any character
            if token["unfinished"] and len(token[0]) < MAX_SCAN:
                self._tail = token[0]
                break
            self._compare(run, token)
            if not run.awaited:
                told += self._tell()
            # the newline that ended the run's line is what comes after its Enter
            at = token.start() if self._after_newline and token[0] == "\n" else token.end()
        return told

    def _compare(self, run: _Run, token: re.Match[str]) -> None:
        self._scanned += 1
        due = run.text[run.echoed]
        if token["text"]:
            if self._place == 0:
                if token["text"] == due:
                    run.echoed += 1
                    self._scanned = 0
                else:
                    run.masked = True
            else:
                self._place += _width(token["text"])
        elif token["back"]:
            if due in _BACKSPACES and self._place == 0:
                run.echoed += 1
            else:
                self._place -= 1
        elif token["move"]:
            columns = int(token["count"] or 1)
            self._place += columns if token["move"] == "C" else -columns
        elif not token["noise"]:
            run.masked = True  # the cursor went where it can not be followed
        if self._scanned > MAX_SCAN:
            run.masked = True

    def _tell(self, *, last_too: bool = False) -> list[Told]:
        """Takes from the queue what is decided. The last run stays: more may be typed that belongs to it."""
        told: list[Told] = []
        while self._queue:
            item = self._queue[0]
            if isinstance(item, _Run):
                if item.awaited or (len(self._queue) == 1 and not last_too):
                    break
                self._size -= len(item.text)
                told.append((Code.REDACTED, WITHHELD) if item.masked else (Code.INPUT, item.text))
            else:
                self._size -= len(item)
                self._after_newline = self._after_newline or item in ("\r", "\n")
                if told and told[-1][0] is Code.INPUT:
                    told[-1] = (Code.INPUT, told[-1][1] + item)
                else:
                    told.append((Code.INPUT, item))
            del self._queue[0]
        return told


def _width(character: str) -> int:
    if ord(character) < 0x300:
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
