"""The bastion is killed in a flood, again and again: is a byte missing that anybody received?"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from tests.e2e.flooding import ROUNDS, SESSIONS, kill_again_and_again
from tests.servers.engine import docker_engine

NAMES = ("kill-9",)


def measure(names: Sequence[str]) -> Table:
    with tempfile.TemporaryDirectory(prefix="bk-") as folder, docker_engine(Path(folder)) as engine:
        home = Path(folder, "bastion")
        home.mkdir()
        found = kill_again_and_again(home, engine, ROUNDS)
    table = Table("", "", title=f"kill -9 while {SESSIONS} sessions flood both ways, {found.rounds} times")
    table.columns[1].justify = "right"
    for what, count in (
        ("sessions", found.sessions),
        ("bytes that clients received", found.to_clients),
        ("bytes that containers received", found.to_containers),
        ("of these, not in the recordings", found.missing),
        ("sessions closed as lost", found.lost),
        ("recordings whose chain verifies", found.verified),
    ):
        table.add_row(what, f"{count:,}")
    return table
