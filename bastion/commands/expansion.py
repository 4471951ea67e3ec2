"""History expansion: of a line with `!x`, or that begins with `^a^b`, the shell prints below it what it runs."""

import re
from typing import Protocol

from bastion.commands.reading import Reader

_EVENT = re.compile(r"(?<!\\)!(?:!|\$|\^|\*|#|-?\d+|\?[^?]*\??|[A-Za-z][\w./-]*)(?::[\^$*\w/-]+)*")
_PRINTED_ONLY = re.compile(r":p\b")
_FAILED = re.compile(
    r"(?i)(?:\A|: )(?:event not found|substitution failed|bad (?:history )?word specifier|no such word)"
)


class Line(Protocol):
    content: str


class Expansion:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._line: Line | None = None
        self._previous = ""
        self._row = 0

    @property
    def pending(self) -> bool:
        return self._line is not None

    @property
    def shown(self) -> bool:
        """Something stands where the shell would print what it has made of the line."""
        return self._line is not None and bool(self._reader.text((self._row, 0), self._row).strip())

    def expect(self, line: Line, previous: str, row: int) -> None:
        """`line`, which stands above `row`, was entered after the command `previous`."""
        self._line = None
        if line.content.startswith("^") or _EVENT.search(line.content):
            self._line, self._previous, self._row = line, previous, row

    def due(self, row: int) -> bool:
        """The output has reached `row`: what became of the line is there."""
        return self._line is not None and row > self._row

    def resolve(self) -> bool:
        """Now, if ever, what became of the line stands below it. True if nothing did, and it was not run."""
        line, self._line = self._line, None
        if line is None:
            return False
        last = self._row
        while self._reader.goes_on(last):
            last += 1
        below = self._reader.text((self._row, 0), last).strip()
        if _FAILED.search(below) or any(_PRINTED_ONLY.search(event[0]) for event in _EVENT.finditer(line.content)):
            return True
        prompt = self._reader.prompt_of(below)
        if prompt and is_expansion(line.content, below[prompt:].strip(), self._previous):
            return True  # bash's histverify, zsh's histverify: it is there to be edited
        if below and is_expansion(line.content, below, self._previous):
            line.content = below
        return False


def is_expansion(typed: str, expanded: str, previous: str) -> bool:
    """`expanded` may have become of `typed`, entered after `previous`: all around the events is the same."""
    if typed.startswith("^"):
        parts = typed.split("^")
        return len(parts) > 2 and previous.replace(parts[1], parts[2], 1) == expanded
    first, *others = _EVENT.split(typed)
    if not others or not expanded.startswith(first):
        return False
    at = len(first)
    for part in others[:-1]:
        at = expanded.find(part, at + 1)
        if at < 0:
            return False
        at += len(part)
    return expanded.endswith(others[-1]) and len(expanded) - len(others[-1]) > at
