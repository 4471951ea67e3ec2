"""Output of a program, bytes in any pieces -> text, control characters and control sequences (ECMA-48, ctlseqs).

Bounded: of a sequence that is not finished no more than UNFINISHED characters are kept. A string (OSC, DCS, APC, PM,
SOS) that is longer is skipped up to its end, anything else that is longer is dropped.
"""

import codecs
import re
from collections.abc import Iterator

UNFINISHED = 4096  # characters of a sequence that wait for their rest

# Groups: CSI parameters, intermediates, final; or the rest of an escape sequence; or what is unfinished at the end.
_TOKEN = re.compile(
    r"[^\x00-\x1f\x7f-\x9f]+"
    r"|\r\n"
    r"|\x1b\[([0-?]*)([ -/]*)([@-~])"
    r"|\x1b[]PX^_][^\x07\x18\x1a\x1b\x9c]*(?:\x07|\x1b\\|[\x18\x1a\x9c])"
    r"|\x1b([ -/]*[0-OQ-WYZ\\`-~])"
    r"|(\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\x07\x18\x1a\x1b\x9c]*\x1b?|[ -/]*)\Z)"
    r"|[\x00-\x1f\x7f-\x9f]"
)
_STRING_END = re.compile(r"[\x07\x18\x1a\x9c]|\x1b\\?")

Token = re.Match[str]
CSI, ESCAPE = 3, 4  # the groups that are set in a control sequence and in an escape sequence


class Tokens:
    """Cuts output into tokens, whatever the pieces are that it comes in."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._skipping = False  # in a string that is too long to be of interest

    def feed(self, data: bytes) -> Iterator[Token]:
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        at = 0
        if self._skipping:
            end = _STRING_END.search(text)
            if end is None:
                return
            self._skipping, at = False, end.end()
        for token in _TOKEN.finditer(text, at):
            if token[5] is None:
                yield token
            elif len(token[5]) <= UNFINISHED:
                self._rest = token[5]
            else:
                self._skipping = token[5][1] in "]PX^_"

    def restart(self) -> None:
        """What comes next does not follow on what came before."""
        self._decoder.reset()
        self._rest = ""
        self._skipping = False
