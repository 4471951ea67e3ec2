"""Measure, print the table, and say what misses its target. Exit status 0 whatever it says: the machine may be busy."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import measures
from tests.bench.measures import Samples, interleaved
from tests.bench.sides import all_sides
from tests.servers.engine import docker_engine

SIDES = ("bastion", "sshd", "docker exec")
LINES = "yes 'a line of text, as logs have them, of some length'"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "10"))


def p50(samples: Samples, side: str) -> float:
    return statistics.median(samples[side])


def main() -> None:
    table = Table(title=f"p50 of {ROUNDS} interleaved rounds, the bastion recording")
    for column in ("", *SIDES, "ratio", "target", ""):
        table.add_column(column, justify="left" if not column else "right")

    def row(what: str, samples: Samples, target: str, met: Callable[[float], bool], against: str = "sshd") -> None:
        ratio = p50(samples, "bastion") / p50(samples, against)
        values = [f"{p50(samples, side):.1f}" if side in samples else "" for side in SIDES]
        cells = [what, *values, f"{ratio:.2f} of {against}", target, "met" if met(ratio) else "MISSED"]
        table.add_row(*cells)
        print(*cells, sep=" | ", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bb-") as folder, docker_engine(Path(folder)) as engine:
        home = Path(folder, "bastion")
        home.mkdir()
        upload = Path(folder, "upload")
        upload.write_bytes(os.urandom(1 << 20) * measures.MEGABYTES)
        with all_sides(home, engine) as (bastion, sshd, docker):
            subprocess.run(
                docker.command(f"{LINES} | head -c {measures.MEGABYTES}M > /tmp/bench", terminal=False), check=True
            )
            sides, servers = (bastion, sshd, docker), (bastion, sshd)
            # First of all: later, what the others have used and given back would be used again.
            samples = {
                "bastion": [measures.memory_per_session(bastion, 200)],
                "sshd": [measures.memory_per_session(sshd, 40)],
            }
            idle = p50(samples, "bastion")
            row("memory per idle session, kB", samples, "at most 60 kB", lambda _: idle <= 60)
            samples = interleaved(sides, 2 * ROUNDS, measures.login_to_prompt)
            row("login to prompt, ms", samples, "at most 0.35", lambda ratio: ratio <= 0.35)
            row("login to prompt, ms", samples, "at most 1.4", lambda ratio: ratio <= 1.4, "docker exec")
            samples = interleaved(sides, ROUNDS, measures.echo_of_a_key)
            row("echo of a key, µs", samples, "at most 1.1", lambda ratio: ratio <= 1.1)
            samples = interleaved(sides, ROUNDS, measures.download)
            row("256 MB out, MB/s", samples, "at least 1.5", lambda ratio: ratio >= 1.5)
            samples = interleaved(sides, ROUNDS, partial(measures.upload, upload))
            row("256 MB in, MB/s", samples, "at least 1.0", lambda ratio: ratio >= 1.0)
            samples = interleaved(servers, 3, measures.cpu_per_login)
            row("CPU per login, ms", samples, "at most 0.6", lambda ratio: ratio <= 0.6)
            samples = interleaved(servers, 5, measures.logins_a_second)
            row("logins a second", samples, "at least 3", lambda ratio: ratio >= 3)
    table.caption = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
