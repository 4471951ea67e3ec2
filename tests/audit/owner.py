"""What somebody does to the rows who owns the database: no rule of it holds."""

import random
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
CHANGES = 60  # of rows that are there, removed and added, on each database


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
