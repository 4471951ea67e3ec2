"""What somebody does to the rows who owns the database: no rule of it holds."""

import json
import random
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Table, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bastion.audit.comparison import Compared
from bastion.audit.tables import POSITION, commands, events, sessions
from bastion.audit.verify import What

TABLES = (events, commands, sessions)
KEYS = (events.c.id, commands.c.command_id, sessions.c.session_id)
NOT_TOLD = (sessions.c.node_ip, sessions.c.created_at)  # the log has nothing of them


class Rows:
    """The rows as they were, and as somebody makes them who owns the database: no rule of it holds."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"
        self._overriding = "OVERRIDING SYSTEM VALUE" if self._postgresql else ""

    async def prepare(self) -> None:
        if self._postgresql:
            await self._connection.execute(text("SET session_replication_role = replica"))
        else:
            await self._connection.execute(text("PRAGMA foreign_keys = OFF"))
            triggers = text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for name in list(await self._connection.scalars(triggers)):
                await self._connection.execute(text(f"DROP TRIGGER {name}"))
        for table in TABLES:
            await self._connection.execute(text(f"CREATE TABLE saved_{table.name} AS SELECT * FROM {table.name}"))
        await self._connection.commit()

    async def restore(self) -> None:
        for table in TABLES:
            await self._connection.execute(table.delete())
            overriding = self._overriding if "position" in table.c else ""
            await self._connection.execute(
                text(f"INSERT INTO {table.name} {overriding} SELECT * FROM saved_{table.name}")
            )
        await self._connection.commit()

    async def all(self, table: Table) -> list[dict[str, Any]]:
        found = await self._connection.execute(select(table).order_by(next(iter(table.c))))
        return [dict(row) for row in found.mappings()]

    async def change(self, table: Table, row: dict[str, Any], values: dict[str, Any]) -> None:
        key = next(iter(table.c))
        where = key == row[key.name]
        await self._connection.execute(table.update().where(where).values(values))
        await self._connection.commit()

    async def remove(self, table: Table, row: dict[str, Any]) -> None:
        key = next(iter(table.c))
        await self._connection.execute(table.delete().where(key == row[key.name]))
        await self._connection.commit()

    async def swap(self, table: Table, one: dict[str, Any], other: dict[str, Any]) -> None:
        """Of tables that have a position, these rows change theirs."""
        columns = ", ".join(f'"{column.name}"' for column in table.c if column.name != "position")
        for row in (one, other):
            await self.remove(table, row)
        for row, place in ((one, other), (other, one)):
            await self._connection.execute(
                text(
                    f"INSERT INTO {table.name} (position, {columns}) {self._overriding} SELECT {place['position']},"
                    f" {columns} FROM saved_{table.name} WHERE position = {row['position']}"
                )
            )
        await self._connection.commit()

    async def add(self, table: Table, row: dict[str, Any]) -> None:
        await self._connection.execute(
            table.insert().values({name: value for name, value in row.items() if name != "position"})
        )
        await self._connection.commit()


def another(rng: random.Random, column: Column[Any], value: Any) -> Any:
    match value:
        case datetime():
            return value + timedelta(microseconds=rng.choice([-1, 1, 10**9]))
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return 7 if isinstance(column.type, type(POSITION)) else "mallory"
    at = rng.randrange(min(len(value), 4000)) if value else 0  # the log has no more of a command
    return value[:at] + rng.choice("xyz\u00e9"[::1]) + value[at:]


def name_of(table: Table, row: dict[str, Any]) -> str:
    return f"session {row['session_id']}" if table is sessions else f"row {row['position']}"


def named(compared: Compared) -> set[tuple[What, str, str]]:
    return {(one.what, one.table, one.row) for one in compared.findings}


def own(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of this bastion; of sessions, those that have ended."""
    mine = [
        row for row in rows if row.get("bastion_id") == "b1" or (table is commands and row["session_id"] != "other")
    ]
    return [row for row in mine if table is not sessions or row["status"] != "active"]


# ---- random changes; each returns the finding that has to be the first of its table ----

Expected = tuple[What, str, str]


async def a_value(rng: random.Random, owned: Rows) -> Expected:
    table = rng.choice(TABLES)
    column = rng.choice([one for one in table.c if one.name != "position" and one not in (*NOT_TOLD, *KEYS)])
    row = rng.choice(own(table, await owned.all(table)))
    await owned.change(table, row, {column.name: another(rng, column, row[column.name])})
    return What.CHANGED, table.name, name_of(table, row)


async def a_byte(rng: random.Random, owned: Rows) -> Expected:
    row = rng.choice(own(events, await owned.all(events)))
    at = rng.randrange(len(row["entry"]))
    byte = rng.choice([chr(one) for one in range(32, 127) if chr(one) != row["entry"][at]])
    await owned.change(events, row, {"entry": row["entry"][:at] + byte + row["entry"][at + 1 :]})
    return What.CHANGED, "events", name_of(events, row)


async def removed(rng: random.Random, owned: Rows) -> Expected:
    table = rng.choice(TABLES)
    row = rng.choice(own(table, await owned.all(table)))
    entries = {one["id"]: one for one in await owned.all(events)}
    await owned.remove(table, row)
    if table is sessions:
        return What.REMOVED, "sessions", name_of(sessions, row)
    of = row if table is events else entries[row["command_id"]]
    return What.REMOVED, table.name, f"entry {seq_of(of)}"


async def added(rng: random.Random, owned: Rows) -> Expected:
    table = rng.choice(TABLES)
    row = dict(rng.choice(own(table, await owned.all(table))))
    key = KEYS[TABLES.index(table)].name
    row[key] = uuid.uuid4().hex
    await owned.add(table, row)
    (made,) = [one for one in await owned.all(table) if one[key] == row[key]]
    return What.ADDED, table.name, name_of(table, made)


async def reordered(rng: random.Random, owned: Rows) -> Expected:
    table = rng.choice((events, commands))
    rows = own(table, await owned.all(table))
    first, last = sorted(rng.sample(range(len(rows)), 2))
    await owned.swap(table, rows[first], rows[last])
    return What.REORDERED, table.name, name_of(table, rows[first + 1] if last > first + 1 else rows[first])


async def cut_short(rng: random.Random, owned: Rows) -> Expected:
    """The last rows of one table."""
    rows = own(events, await owned.all(events))
    return await _cut(owned, rows, len(rows) - rng.randrange(1, len(rows) // 2))


async def rolled_back(rng: random.Random, owned: Rows) -> Expected:
    """All tables, to what they were at an older signed head."""
    rows = own(events, await owned.all(events))
    at = rng.choice([at for at, row in enumerate(rows[:-1], 1) if row["event"] == "audit.head"])
    later = {row["id"]: row for row in rows[at:]}
    begun = {row["session_id"] for row in rows[:at] if row["event"] == "session.start"}
    ended = {row["session_id"] for row in rows[:at] if row["event"] == "session.end"}
    for row in own(commands, await owned.all(commands)):
        if row["command_id"] in later:
            await owned.remove(commands, row)
    for row in own(sessions, await owned.all(sessions)):
        if row["session_id"] not in begun:
            await owned.remove(sessions, row)
        elif row["session_id"] not in ended:
            await owned.change(sessions, row, {"status": "active", "ended_at": None, "updated_at": row["created_at"]})
    return await _cut(owned, rows, at)


async def _cut(owned: Rows, rows: list[dict[str, Any]], at: int) -> Expected:
    for row in rows[at:]:
        await owned.remove(events, row)
    first, last = seq_of(rows[at]), seq_of(rows[-1])
    return What.REMOVED, "events", f"entry {first}" if first == last else f"entries {first} to {last}"


def seq_of(row: dict[str, Any]) -> int:
    return int(json.loads(row["entry"])["seq"])


KINDS: list[Callable[[random.Random, Rows], Awaitable[Expected]]] = [
    a_value, a_byte, removed, added, reordered, cut_short, rolled_back,
]  # fmt: skip
