"""What reading the commands costs a flood: the bastion beside itself with nobody who reads them, in turns."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from tests.bench import without_detector
from tests.bench.comparison import LINES
from tests.bench.measures import MEGABYTES, download, download_on_terminal, interleaved
from tests.bench.sides import BastionSide, DockerExec
from tests.servers.bastion import serving
from tests.servers.engine import DEBIAN, docker_engine

NAMES = ("detector",)
WITHOUT, WITH = "without", "with detector"
KEPT = 0.9  # of the speed
ROUNDS = 5
WITHOUT_DETECTOR = [sys.executable, "-P", without_detector.__file__]


def measure(_: Sequence[str]) -> Table:
    table = Table(title=f"what reading the commands costs a flood: p50 of {ROUNDS} rounds in turns")
    for column in ("", WITHOUT, WITH, "of the speed", "target", ""):
        table.add_column(column, justify="right" if column else "left")
    with tempfile.TemporaryDirectory(prefix="bd-") as folder, docker_engine(Path(folder)) as engine:
        container = engine.app("bench", "main", 1, image=DEBIAN)
        homes = {name: Path(folder, name.partition(" ")[0]) for name in (WITHOUT, WITH)}
        for home in homes.values():
            home.mkdir()
        docker = DockerExec(engine, str(container.name))
        made = docker.command(f"{LINES} | head -c {MEGABYTES}M > /tmp/bench", terminal=False)
        subprocess.run(made, check=True)
        with (
            serving(homes[WITH], engine.url) as bastion,
            serving(homes[WITHOUT], engine.url, program=WITHOUT_DETECTOR) as other,
        ):
            sides = BastionSide(other, WITHOUT), BastionSide(bastion, WITH)
            for what, how in (("on a terminal", download_on_terminal), ("without a terminal", download)):
                samples = interleaved(sides, ROUNDS, how)
                without, with_ = (statistics.median(samples[name]) for name in (WITHOUT, WITH))
                judged = "met" if with_ / without >= KEPT else "MISSED"
                cells = [
                    f"{MEGABYTES} MB {what}, MB/s",
                    f"{without:.1f}",
                    f"{with_:.1f}",
                    f"{with_ / without:.2f}",
                    f"at least {KEPT}",
                    judged,
                ]
                table.add_row(*cells)
                print(*cells, sep=" | ", file=sys.stderr, flush=True)
    return table
