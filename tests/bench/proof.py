"""What the proof costs: the bastion beside itself with nothing chained, signed or brought to the disk, in turns."""

import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import SecretStr
from rich.table import Table

from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.config import Audit, Database
from tests.bench import measures, without_proof
from tests.bench.comparison import LINES, ROUNDS
from tests.bench.measures import MEGABYTES, Samples, interleaved
from tests.bench.sides import BastionSide, DockerExec
from tests.bench.without_proof import NO_STREAM_HASHES
from tests.servers.bastion import serving
from tests.servers.engine import DEBIAN, docker_engine

WITHOUT, WITH = "without", "with proof"
NO_HASHES = "no hashes"  # of the streams either, which session.end has
KEPT = 0.9  # of the speed
EVENTS = 200  # a round, one after the other; and so many together
TOGETHER = 20
WITHOUT_PROOF = [sys.executable, "-P", without_proof.__file__]
Statistic = Callable[[list[float]], float]
Report = Callable[[str, Samples, Statistic, bool, bool], None]


def measure(names: Sequence[str]) -> Table:
    table = Table(
        title=f"the proof's cost: nothing chained, signed or brought to the disk, and all; {ROUNDS} rounds in turns"
    )
    for column in ("", WITHOUT, WITH, "of the speed", "target", ""):
        table.add_column(column, justify="right" if column else "left")

    def row(what: str, samples: Samples, of: Statistic, more_is_better: bool, judged: bool) -> None:
        """Not judged, since it has no target: what nobody waits for by itself, or is no part of the proof."""
        without, with_ = of(samples[WITHOUT]), of(samples[WITH])
        kept = with_ / without if more_is_better else without / with_
        verdict = [f"at least {KEPT}", "met" if kept >= KEPT else "MISSED"] if judged else ["", ""]
        cells = [what, f"{without:.1f}", f"{with_:.1f}", f"{kept:.2f}", *verdict]
        table.add_row(*cells)
        print(*cells, sep=" | ", file=sys.stderr, flush=True)

    if {"proof-key", "proof-out"} & set(names):
        sessions(names, row)
    if "proof-emit" in names:
        for together, what in ((1, "emit(), µs"), (TOGETHER, f"emit(), {TOGETHER} at once, µs")):
            samples = emits(together)
            row(f"{what}, p50", samples, statistics.median, False, False)
            row(f"{what}, p99", samples, p99, False, False)
    return table


def p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100)[-1]


def sessions(names: Sequence[str], row: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="bp-") as folder, docker_engine(Path(folder)) as engine:
        container = engine.app("bench", "main", 1, image=DEBIAN)
        homes = {name: Path(folder, name.partition(" ")[0]) for name in (WITHOUT, WITH, NO_HASHES)}
        for home in homes.values():
            home.mkdir()
        with (
            serving(homes[WITH], engine.url) as bastion,
            serving(homes[WITHOUT], engine.url, program=WITHOUT_PROOF) as other,
            serving(homes[NO_HASHES], engine.url, program=[*WITHOUT_PROOF, NO_STREAM_HASHES]) as third,
        ):
            sides = BastionSide(other, WITHOUT), BastionSide(bastion, WITH)
            if "proof-key" in names:
                times: Samples = {side.name: [] for side in sides}
                for number in range(ROUNDS + 1):
                    for side in sides:
                        found = measures.echo_times(side)
                        times[side.name] += found if number else []  # a round that is not counted
                row("echo of a key, µs, p50", times, statistics.median, False, True)
                row("echo of a key, µs, p99", times, p99, False, True)
            if "proof-out" in names:
                docker = DockerExec(engine, str(container.name))
                made = docker.command(f"{LINES} | head -c {MEGABYTES}M > /tmp/bench", terminal=False)
                subprocess.run(made, check=True)
                out = interleaved((*sides, BastionSide(third, NO_HASHES)), ROUNDS, measures.download)
                row(f"{MEGABYTES} MB out, MB/s", out, statistics.median, True, True)
                row("without its SHA-256 either", {**out, WITHOUT: out[NO_HASHES]}, statistics.median, True, False)


def emits(together: int) -> Samples:
    """Microseconds of each."""
    samples: Samples = {WITHOUT: [], WITH: []}
    for _ in range(ROUNDS):
        for name in samples:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                samples[name] += pool.apply(_emits, (name == WITH, together))
    return samples


def _emits(proof: bool, together: int) -> list[float]:
    if not proof:
        without_proof.take_out_proof()
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        return asyncio.run(_emit_again_and_again(Path(folder), together))


async def _emit_again_and_again(folder: Path, together: int) -> list[float]:
    database = Database(url=SecretStr(f"sqlite+aiosqlite:///{folder}/bastion.db"))
    await upgrade(database)
    engine = create_engine(database)
    section = Audit(file=folder / "audit.jsonl", signing_key=folder / "audit_key")
    times: list[float] = []

    async def one(log: AuditLog) -> None:
        began = time.perf_counter()
        await log.emit(Event.CONFIG_RELOADED)
        times.append((time.perf_counter() - began) * 1e6)

    async with AuditLog(section, "bench", engine, folder) as log:
        for _ in range(EVENTS // together):
            await asyncio.gather(*(one(log) for _ in range(together)))
    await engine.dispose()
    return times


NAMES = ("proof-key", "proof-out", "proof-emit")
