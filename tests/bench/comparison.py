"""The bastion, recording, against what a user would pick instead: both sides in one run, in turns."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from tests.bench import measures
from tests.bench.measures import Samples, interleaved
from tests.bench.sides import BastionSide, DockerExec, Sshd, all_sides
from tests.servers.engine import docker_engine

LINES = "yes 'a line of text, as logs have them, of some length'"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "10"))


def p50(samples: Samples, side: str) -> float:
    return statistics.median(samples[side])


class Comparison:
    """The sides, and the table that fills."""

    def __init__(self, folder: Path, bastion: BastionSide, sshd: Sshd, docker: DockerExec) -> None:
        self.folder = folder
        self.bastion, self.sshd, self.docker = bastion, sshd, docker
        self.servers, self.sides = (bastion, sshd), (bastion, sshd, docker)
        self.table = Table(title=f"p50 of {ROUNDS} interleaved rounds, the bastion recording")
        for column in ("", *(side.name for side in self.sides), "ratio", "target", ""):
            self.table.add_column(column, justify="left" if not column else "right")

    def row(
        self, what: str, samples: Samples, met: Callable[[float], bool], target: str, against: str = "sshd"
    ) -> None:
        ratio = p50(samples, "bastion") / p50(samples, against)
        values = [f"{p50(samples, side.name):.1f}" if side.name in samples else "" for side in self.sides]
        cells = [what, *values, f"{ratio:.2f} of {against}", target, "met" if met(ratio) else "MISSED"]
        self.table.add_row(*cells)
        print(*cells, sep=" | ", file=sys.stderr, flush=True)


def memory(run: Comparison) -> None:
    samples = {
        "bastion": [measures.memory_per_session(run.bastion, 200)],
        "sshd": [measures.memory_per_session(run.sshd, 40)],
    }
    idle = p50(samples, "bastion")
    run.row("memory per idle session, kB", samples, lambda _: idle <= 60, "at most 60 kB")


def login(run: Comparison) -> None:
    samples = interleaved(run.sides, 2 * ROUNDS, measures.login_to_prompt)
    run.row("login to prompt, ms", samples, lambda ratio: ratio <= 0.35, "at most 0.35")
    run.row("login to prompt, ms", samples, lambda ratio: ratio <= 1.4, "at most 1.4", "docker exec")


def echo(run: Comparison) -> None:
    samples = interleaved(run.sides, ROUNDS, measures.echo_of_a_key)
    run.row("echo of a key, µs", samples, lambda ratio: ratio <= 1.1, "at most 1.1")


def out(run: Comparison) -> None:
    command = run.docker.command(f"{LINES} | head -c {measures.MEGABYTES}M > /tmp/bench", terminal=False)
    subprocess.run(command, check=True)
    samples = interleaved(run.sides, ROUNDS, measures.download)
    run.row("256 MB out, MB/s", samples, lambda ratio: ratio >= 1.5, "at least 1.5")


def into(run: Comparison) -> None:
    upload = run.folder / "upload"
    upload.write_bytes(os.urandom(1 << 20) * measures.MEGABYTES)
    samples = interleaved(run.sides, ROUNDS, partial(measures.upload, upload))
    run.row("256 MB in, MB/s", samples, lambda ratio: ratio >= 1.0, "at least 1.0")


def cpu(run: Comparison) -> None:
    samples = interleaved(run.servers, 3, measures.cpu_per_login)
    run.row("CPU per login, ms", samples, lambda ratio: ratio <= 0.6, "at most 0.6")


def logins(run: Comparison) -> None:
    samples = interleaved(run.servers, 5, measures.logins_a_second)
    run.row("logins a second", samples, lambda ratio: ratio >= 3, "at least 3")


BENCHMARKS: Mapping[str, Callable[[Comparison], None]] = {
    "memory": memory,  # first of all: later, what the others have used and given back would be used again
    "login": login,
    "echo": echo,
    "out": out,
    "in": into,
    "cpu": cpu,
    "logins": logins,
}
NAMES = tuple(BENCHMARKS)


def measure(names: Sequence[str]) -> Table:
    with comparison() as run:
        for name in names:
            BENCHMARKS[name](run)
        return run.table


@contextlib.contextmanager
def comparison() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory(prefix="bb-") as folder, docker_engine(Path(folder)) as engine:
        home = Path(folder, "bastion")
        home.mkdir()
        with all_sides(home, engine) as sides:
            yield Comparison(Path(folder), *sides)
