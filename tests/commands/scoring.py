"""Recorded sessions of real shells, with what these said that they ran, and how the detector does on them.

A session is a header line and then one event a line, as JSON: {"t": seconds, "k": "i" | "o" | "r", "d": base64 or
the size}.
The header has `truth` (each with `alt`, other right forms), `optional` (lines typed into programs: neither wanted
nor wrong) and `secrets` (typed while the terminal did not echo).
"""

import base64
import collections
import gzip
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bastion.commands.detector import Detector
from bastion.model import Command, Confidence

SESSIONS = Path(__file__).parent / "sessions"

Happening = tuple[float, str, Any]


class Scored:
    """The detector behind the interface of a scorer: `feed` every event, then `close`; `commands` is what was run."""

    def __init__(self, columns: int, rows: int, term: str = "") -> None:
        self._detector = Detector(columns, rows)
        self.found: list[Command] = []

    def feed(self, kind: str, data: Any, at: float) -> None:
        if kind == "r":
            self._detector.resize(at, *data)
        elif kind == "i":
            self._detector.input(at, data)
        else:
            self._detector.output(at, data)
        self.found += self._detector.take(at)

    def close(self) -> None:
        self.found += self._detector.finish()

    @property
    def commands(self) -> list[str]:
        return [command.content for command in self.found if command.confidence is not Confidence.UNECHOED]


@dataclass
class Score:
    """Lines that were right, wanted and given; secrets that stand in a command."""

    right: int = 0
    wanted: int = 0
    given: int = 0
    leaks: int = 0

    @property
    def precision(self) -> float:
        return 100 * self.right / max(1, self.given)

    @property
    def recall(self) -> float:
        return 100 * self.right / max(1, self.wanted)


def load(path: Path) -> tuple[dict[str, Any], list[Happening]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        header = json.loads(next(lines))
        events = [json.loads(line) for line in lines]
    return header, [(e["t"], e["k"], tuple(e["d"]) if e["k"] == "r" else base64.b64decode(e["d"])) for e in events]


def delayed(events: list[Happening], seconds: float) -> list[Happening]:
    """The same session over a slow path: output comes later."""
    return sorted(((t + seconds * (k == "o"), k, d) for t, k, d in events), key=lambda event: event[0])


def split(events: list[Happening]) -> list[Happening]:
    """Output comes byte by byte."""
    return [(t, k, part) for t, k, d in events for part in ([d[i : i + 1] for i in range(len(d))] if k == "o" else [d])]


def replay(header: dict[str, Any], events: list[Happening]) -> Scored:
    scored = Scored(*header["size"], header["term"])
    for at, kind, data in events:
        scored.feed(kind, data, at)
    scored.close()
    return scored


def judge(header: dict[str, Any], commands: list[str], score: Score) -> None:
    """Adds to `score`: lines count, the same to the letter, in order."""
    truth = [
        (line, {n for a in x.get("alt", []) for n in _lines(a)}) for x in header["truth"] for line in _lines(x["c"])
    ]
    found = [line for command in commands for line in _lines(command)]
    pairs = list(_aligned(truth, found))
    optional = collections.Counter(line for o in header["optional"] for line in _lines(o))
    hits = {j for _, j in pairs}
    extra = 0
    for j, line in enumerate(found):
        if j not in hits:
            extra += not optional[line]
            optional[line] -= optional[line] > 0
    score.right += len(pairs)
    score.wanted += len(truth)
    score.given += len(pairs) + extra
    score.leaks += sum(any(secret in command for command in commands) for secret in header["secrets"])


def _lines(text: str) -> list[str]:
    parts = (unicodedata.normalize("NFC", part).strip() for part in text.replace("\\\n", "").split("\n"))
    return [part for part in parts if part]


def _aligned(truth: list[tuple[str, set[str]]], found: list[str]) -> Iterator[tuple[int, int]]:
    """The longest common subsequence."""
    same = [[f == t or f in alts for f in found] for t, alts in truth]
    n, m = len(truth), len(found)
    best = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            best[i][j] = best[i + 1][j + 1] + 1 if same[i][j] else max(best[i + 1][j], best[i][j + 1])
    i = j = 0
    while i < n and j < m:
        if same[i][j] and best[i][j] == best[i + 1][j + 1] + 1:
            yield i, j
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
