"""From an event to the terminal of whoever follows with `bastion audit tail -f`, on both databases."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.table import Table

from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.config import Config, load_config
from tests.servers.postgres import postgres_server

NAMES = ["tail"]
EVENTS = 300
PAUSE = 0.1  # seconds between two events, at most
LIMIT = 250  # ms, of the 95th percentile


def measure(names: Sequence[str]) -> Table:
    table = Table(title=f"from an event to the terminal that follows, {EVENTS} events, ms")
    for column in ("", "p50", "p95", "longest", "target for p95", ""):
        table.add_column(column, justify="right" if column else "left")
    with tempfile.TemporaryDirectory(prefix="bt-") as folder, postgres_server() as server:
        for what, url in (
            ("SQLite", f"sqlite+aiosqlite:///{folder}/bastion.db"),
            ("PostgreSQL", server.url(server.create_database())),
        ):
            place = Path(folder, what)
            place.mkdir()
            (place / "config.yaml").write_text(yaml.safe_dump({"auth": {"local": {}}, "database": {"url": url}}))
            asyncio.run(upgrade(load_config(place / "config.yaml").database))
            times = _times(place / "config.yaml")
            p95 = statistics.quantiles(times, n=20)[-1]
            cells = [f"{value:.0f}" for value in (statistics.median(times), p95, max(times))]
            table.add_row(what, *cells, f"under {LIMIT}", "met" if p95 < LIMIT else "MISSED")
    return table


def _times(file: Path) -> list[float]:
    config = load_config(file)
    command = [sys.executable, "-m", "bastion", "audit", "tail", "-f", "-n", "1", "--json", "-c", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()  # its own look: from here on it follows
        came: dict[int, float] = {}
        reading = threading.Thread(target=_read, args=(follower, came))
        reading.start()
        began = asyncio.run(_emit(config))
        reading.join(60)
        follower.terminate()
    return [(came[number] - began[number]) * 1000 for number in range(EVENTS)]


async def _emit(config: Config) -> list[float]:
    database = create_engine(config.database)
    began = []
    async with AuditLog(config.audit, config.bastion_id, database, config.state_folder) as log:
        for number in range(EVENTS):
            began.append(time.perf_counter())
            await log.emit(Event.CONFIG_RELOADED, number=number)
            await asyncio.sleep(random.uniform(0, PAUSE))
    await database.dispose()
    return began


def _read(follower: "subprocess.Popen[bytes]", came: dict[int, float]) -> None:
    assert follower.stdout is not None
    for line in follower.stdout:
        now, fields = time.perf_counter(), json.loads(line)
        if "number" in fields:
            came[fields["number"]] = now
        if len(came) == EVENTS:
            return
