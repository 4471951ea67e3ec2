"""A shell without a terminal that reads its commands from its input: what is piped in is what is run."""

import shlex
from pathlib import PurePosixPath

from bastion.model import Command, Confidence

LIMIT = 65_536  # bytes of a script that are kept
PIECE = 4000  # bytes that become one command
QUIET = 1.0  # seconds after which what has come is a piece
CUT = f"[cut: of what is piped into a shell, {LIMIT} bytes are kept]"

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "busybox"})
_BEFORE = frozenset({"exec", "env", "sudo", "command", "nice", "nohup"})


def reads_script(command: str | None) -> bool:
    """Whether this command, run without a terminal, is a shell that reads commands; None is the login shell itself."""
    if command is None:
        return True
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    while words and (words[0] in _BEFORE or "=" in words[0]):
        words.pop(0)
    if not words or PurePosixPath(words.pop(0)).name not in _SHELLS:
        return False
    if words and words[0] in _SHELLS:  # busybox sh
        words.pop(0)
    options = [word for word in words if word.startswith("-") and word != "-"]
    short = "".join(word for word in options if not word.startswith("--"))
    file = words[len(options) :] if words[: len(options)] == options else words
    return "c" not in short and ("s" in short or file in ([], ["-"]))


class Script:
    """What was piped in, in pieces of whole lines; beyond LIMIT nothing is kept, and the last piece says so."""

    def __init__(self) -> None:
        self._text = b""
        self._kept = 0
        self._cut = False
        self._began = self._last = 0.0

    @property
    def pending(self) -> bool:
        return False

    @property
    def waiting(self) -> bool:
        return bool(self._text)

    def input(self, at: float, data: bytes) -> None:
        if self._cut:
            return
        if not self._text:
            self._began = at
        self._last = at
        part = data[: LIMIT - self._kept]
        self._kept += len(part)
        self._text += part
        self._cut = len(part) < len(data)
        if self._cut:
            self._text += b"\n" + CUT.encode()

    def output(self, at: float, data: bytes) -> None:
        """What it prints says nothing of what it runs."""

    def resize(self, at: float, columns: int, rows: int) -> None:
        """There is no terminal."""

    def lose(self) -> None:
        """Nothing depends on what was before."""

    def take(self, at: float) -> list[Command]:
        pieces = []
        while len(self._text) > PIECE:
            end = self._text.rfind(b"\n", 0, PIECE) + 1 or PIECE
            pieces.append(self._piece(end))
        if self._text.endswith(b"\n") and at - self._last >= QUIET:
            pieces.append(self._piece(len(self._text)))
        return pieces

    def finish(self) -> list[Command]:
        pieces = self.take(self._last)
        return [*pieces, self._piece(len(self._text))] if self._text else pieces

    def _piece(self, end: int) -> Command:
        text, self._text = self._text[:end], self._text[end:]
        content = text.decode("utf-8", "replace").rstrip("\n")
        return Command(content, Confidence.INPUT, self._began)
