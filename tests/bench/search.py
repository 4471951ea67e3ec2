"""A substring among a million commands, as `bastion commands search --like` looks for it, on both databases."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from rich.table import Table
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine, upgrade
from bastion.audit.search import Filters, Search
from bastion.audit.tables import commands, sessions
from bastion.config import Database
from tests.servers.postgres import postgres_server

NAMES = ["search"]
COMMANDS = 1_000_000
SESSIONS = 20_000
BATCH = 20_000
LIMIT = 200  # ms
RUNS = 7
WORDS = [
    "ls -la /var/log",
    "tail -f",
    "grep -rn",
    "cat /etc",
    "kubectl get pods",
    "git status",
    "cd /srv/app",
    "ps aux",
]
LOOKED_FOR = {
    "one in a million": {"like": "xyzzy-needle"},
    "one in a thousand": {"like": "rare-word"},
    "half of all": {"like": "s/file"},
    "none": {"like": "no such command"},
    "one in a thousand, of a user": {"like": "rare-word", "user": "user7"},
}


def measure(names: Sequence[str]) -> Table:
    table = Table(title=f"a substring among {COMMANDS:,} commands, the last 50, ms (median, longest of {RUNS})")
    for column in ("how many have it", "SQLite", "PostgreSQL", "target", ""):
        table.add_column(column, justify="left" if column == "how many have it" else "right")
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, postgres_server() as server:
        sqlite = asyncio.run(_times(f"sqlite+aiosqlite:///{folder}/bastion.db"))
        postgres = asyncio.run(_times(server.url(server.create_database())))
    for what in LOOKED_FOR:
        met = max(statistics.median(times[what]) for times in (sqlite, postgres)) < LIMIT
        cells = [f"{statistics.median(times[what]):.1f}, {max(times[what]):.1f}" for times in (sqlite, postgres)]
        table.add_row(what, *cells, f"under {LIMIT}", "met" if met else "MISSED")
    return table


async def _times(url: str) -> dict[str, list[float]]:
    config = Database(url=SecretStr(url))
    await upgrade(config)
    engine = create_engine(config)
    await fill(engine, COMMANDS)
    found = {}
    for what, wanted in LOOKED_FOR.items():
        found[what] = [await _time(engine, wanted) for _ in range(RUNS)]
    await engine.dispose()
    return found


async def _time(engine: AsyncEngine, wanted: dict[str, str]) -> float:
    began = time.perf_counter()
    await Search(engine).commands(Filters(user=wanted.get("user")), like=wanted["like"])
    return (time.perf_counter() - began) * 1000


async def fill(engine: AsyncEngine, count: int) -> None:
    """Sessions of a hundred users, and commands of some length."""
    chance = random.Random(1)
    now = datetime.now(UTC) - timedelta(days=30)
    where = {"connection_id": "c", "bastion_id": "b", "source_ip": "::1", "engine": "e", "container_id": "i"}
    where |= {"terminal": True, "status": "ended", "created_at": now, "updated_at": now}
    rows = [
        {"session_id": f"s{n}", "user": f"user{n % 100}", "app_name": f"app{n % 50}", **where} for n in range(SESSIONS)
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(sessions), rows)
    for start in range(0, count, BATCH):
        async with engine.begin() as connection:
            await connection.execute(insert(commands), [_command(n, now, chance) for n in range(start, start + BATCH)])
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":  # as autovacuum does
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM ANALYZE commands"))


def _command(number: int, now: datetime, chance: random.Random) -> dict[str, object]:
    content = f"{chance.choice(WORDS)} {chance.choice(WORDS)}{'s/file' * (number % 2)}{chance.getrandbits(40):x}"
    content += " rare-word" * (number % 1000 == 500) + " xyzzy-needle" * (number == COMMANDS // 3)
    session = number % SESSIONS
    return {
        "command_id": f"{number:032x}",
        "session_id": f"s{session}",
        "user": f"user{session % 100}",
        "app_name": f"app{session % 50}",
        "address": f"app{session % 50}.w.1",
        "content": content,
        "confidence": "exact",
        "prompt": "$ ",
        "at": 1.0,
        "degraded": False,
        "created_at": now + timedelta(seconds=number),
    }
