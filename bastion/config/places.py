"""Where in the file an option is, for what is only seen to be wrong when it is used."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bastion.errors import ConfigError

OptionPath = tuple[str | int, ...]

_OPTION = re.compile(r"([a-z]\w*(?:\.[a-z]\w*|\[\d+\])*): ")
_PART = re.compile(r"[a-z]\w*|\d+")


@dataclass(frozen=True)
class Places:
    """The lines that options are written on; the sections that an option is in are the next best.

    All are equal: configurations are the same when they say the same.
    """

    file: str = field(default="", compare=False)
    lines: Mapping[OptionPath, int] = field(default_factory=dict, compare=False)

    def line(self, path: OptionPath) -> int:
        return next(self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """A ConfigError that leaves the block has file and line before each problem that begins with an option."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError([self._with_place(problem) for problem in error.problems]) from None

    def _with_place(self, problem: str) -> str:
        option = _OPTION.match(problem)
        if option is None or not self.lines:
            return problem
        path = tuple(int(part) if part.isdigit() else part for part in _PART.findall(option[1]))
        return f"{self.file}:{self.line(path)}: {problem}"
