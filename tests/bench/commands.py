"""How much of what was run is found, and what finding it costs: on the recorded sessions of tests/commands."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.table import Table

from bastion.commands.detector import Detector
from tests.commands.scoring import SESSIONS, Happening, Score, delayed, judge, load, replay, split

NAMES = ("commands",)
FLOOD = 256 << 20  # bytes
CHUNK = b"".join(b"%d\r\n" % number for number in range(40_000))[: 256 << 10]

PATHS: dict[str, Callable[[list[Happening]], list[Happening]]] = {
    "as recorded": lambda events: events,
    "output 60 ms later": partial(delayed, seconds=0.06),
    "output 150 ms later": partial(delayed, seconds=0.15),
    "output byte by byte": split,
}


def measure(_: Sequence[str]) -> Table:
    recorded = [load(path) for path in sorted(SESSIONS.glob("*.jsonl.gz"))]
    table = Table("commands", "precision, %", "recall, %", "secrets", title="What was run, of what the shells say")
    for name, path in PATHS.items():
        score = Score()
        for header, events in recorded:
            judge(header, replay(header, path(events)).commands, score)
        table.add_row(name, f"{score.precision:.1f}", f"{score.recall:.1f}", str(score.leaks))
    keys = sum(kind == "i" for _, events in recorded for _, kind, _ in events)
    began = time.process_time()
    for header, events in recorded:
        replay(header, events)
    table.add_row("µs a key, with its echo", f"{(time.process_time() - began) / keys * 1e6:.0f}", "", "")
    table.add_row("256 MB of output, MB/s", f"{FLOOD / _flood() / 1e6:.0f}", "", "")
    return table


def _flood() -> float:
    """Seconds of the processor for output that nobody types into."""
    detector = Detector(80, 24)
    began = time.process_time()
    for _ in range(FLOOD // len(CHUNK)):
        detector.output(0, CHUNK)
    return time.process_time() - began
