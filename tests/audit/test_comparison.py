"""A log and its database, as a bastion writes them, and what somebody does to the rows who owns the database."""

import json
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Column, Table, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bastion.audit.comparison import Compared, compare, last_position
from bastion.audit.database import create_engine
from bastion.audit.events import Event
from bastion.audit.files import files, lines_of
from bastion.audit.log import AuditLog
from bastion.audit.sessions import SessionRows
from bastion.audit.tables import POSITION, commands, events, sessions
from bastion.audit.verify import What
from bastion.config import Database
from bastion.model import Address, Container, ContainerState
from tests.audit.sections import audit

CONNECTION = {"connection_id": "c1", "user": "alice", "source_ip": "192.0.2.7"}
TABLES = (events, commands, sessions)
KEYS = (events.c.id, commands.c.command_id, sessions.c.session_id)
NOT_TOLD = (sessions.c.node_ip, sessions.c.created_at)  # the log has nothing of them
CHANGES = 60  # of rows that are there, removed and added, on each database


async def one_session(log: AuditLog, rows: SessionRows, name: str, command: str | None, ends: bool = True) -> None:
    address = Address("web", "worker", len(name), "east" if command else None)
    container = Container("local", "f00d" * 16, "web_1", "image", {}, ContainerState.RUNNING, address)
    await rows.begin(session_id=name, container=container, terminal=command is None, command=command, **CONNECTION)
    bound = log.bind(session_id=name, address=str(address), container_id=container.id, engine="local", **CONNECTION)
    await bound.emit(
        Event.SESSION_START, terminal=command is None, command=command, rule="label", recording=f"{name}.cast"
    )
    for number in range(3):
        await bound.emit(
            Event.SESSION_COMMAND,
            content=f"echo {number}\0\udc80",
            confidence="exact",
            at=number + 0.5,
            prompt="$ ",
            degraded=False,
        )
    if ends:
        await bound.emit(Event.SESSION_END, status="ended", exit_status=0)


@dataclass(frozen=True)
class Trail:
    folder: Path
    engine: AsyncEngine

    @property
    def file(self) -> Path:
        return self.folder / "audit.jsonl"

    def log(self, engine: AsyncEngine | None = None, bastion: str = "b1", state: str = "state") -> AuditLog:
        file = self.file if bastion == "b1" else self.folder / bastion
        return AuditLog(audit(file), bastion, engine or self.engine, self.folder / state / bastion)

    def away(self) -> AsyncEngine:
        return create_engine(Database(url=SecretStr(f"sqlite+aiosqlite:///{self.folder}/nowhere/bastion.db")))

    async def compare(self, paths: Sequence[Path] = ()) -> Compared:
        position = await last_position(self.engine)
        lines = (line for path in paths or files(self.file) for line in lines_of(path))
        return await compare(self.engine, position, lines, 10**9)


@pytest.fixture
async def trail(tmp_path: Path, database: AsyncEngine) -> Trail:
    """Two starts and a rotation of one bastion, a session that runs, and another bastion in the same database."""
    made = Trail(tmp_path, database)
    for start in range(2):
        async with made.log() as log, SessionRows(database, "b1") as rows:
            await one_session(log, rows, f"shell{start}", None)
            await one_session(log, rows, f"exec{start}", "x\0\udc80" * 3000)
        if not start:
            made.file.rename(tmp_path / "audit.jsonl.1")
    async with made.log(bastion="b2") as log, SessionRows(database, "b2") as rows:
        await one_session(log, rows, "other", "true")
    async with made.log() as log, SessionRows(database, "b1") as rows:
        await one_session(log, rows, "runs", None, ends=False)
    return made


async def test_what_was_written_is_as_it_was_written(trail: Trail) -> None:
    compared = await trail.compare()
    assert (compared.findings, compared.crashed, compared.older, compared.waiting) == ([], [], 0, 0)
    assert compared.rows == sum(1 for path in files(trail.file) for _ in lines_of(path))
    assert (await trail.compare([trail.file])).findings == []
    assert 10 < (await trail.compare([trail.file])).older < compared.rows


async def test_what_waits_in_the_spool_is_counted_and_no_finding(trail: Trail) -> None:
    away = trail.away()
    async with trail.log(away) as log, SessionRows(trail.engine, "b1") as rows:
        await one_session(log, rows, "late", None)
    await away.dispose()
    compared = await trail.compare()
    assert compared.findings == []
    assert compared.waiting > 5
    async with trail.engine.begin() as connection:
        await connection.execute(sessions.update().where(sessions.c.session_id == "late").values(user="mallory"))
        await connection.execute(events.update().where(events.c.event == "audit.head").values(user="mallory"))
    found = {(one.what, one.table, one.row) for one in (await trail.compare()).findings}
    assert (What.CHANGED, "sessions", "session late") in found
    assert {(what, table) for what, table, _ in found} == {(What.CHANGED, "sessions"), (What.CHANGED, "events")}
    async with trail.log():
        pass
    assert (await trail.compare()).waiting == 0


async def test_a_session_that_is_about_to_begin(trail: Trail) -> None:
    container = Container("local", "f", "web", "image", {}, ContainerState.RUNNING, Address("web", "worker", 1))
    async with SessionRows(trail.engine, "b1") as rows:
        await rows.begin(session_id="new", container=container, terminal=True, command=None, **CONNECTION)
    compared = await trail.compare()
    assert (compared.findings, compared.waiting) == ([], 1)


async def test_what_a_crash_kept_from_the_database_is_told_and_no_finding(trail: Trail) -> None:
    away = trail.away()
    async with trail.log(away, state="gone") as log:
        await log.emit(Event.CONFIG_RELOADED)
    await away.dispose()
    async with trail.log():
        pass
    compared = await trail.compare()
    assert compared.findings == []
    ((first, last),) = compared.crashed
    assert last > first


async def test_more_than_a_crash_keeps_is_a_finding(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bastion.audit.comparison.CRASH", timedelta(0))
    await test_what_waits_in_the_spool_is_counted_and_no_finding(trail)  # these are at the end
    async with trail.engine.begin() as connection:
        last = await connection.scalar(select(events.c.position).order_by(events.c.position.desc()).limit(1))
        assert last is not None
        starts = select(events.c.position).where(events.c.event == "audit.verified", events.c.bastion_id == "b1")
        second = list(await connection.scalars(starts.order_by(events.c.position)))[1]
        await connection.execute(events.delete().where(events.c.position == second - 1))
    assert any((one.what, one.table) == (What.REMOVED, "events") for one in (await trail.compare()).findings)


# ---- a few hundred changes ----


class Rows:
    """The rows as they were, and as somebody makes them who owns the database: no rule of it holds."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

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
            overriding = "OVERRIDING SYSTEM VALUE" if self._postgresql and "position" in table.c else ""
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


@pytest.fixture
async def owned(trail: Trail) -> AsyncIterator[Rows]:
    async with trail.engine.connect() as connection:
        rows = Rows(connection)
        await rows.prepare()
        yield rows


def own(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of this bastion; of sessions, those that have ended."""
    mine = [
        row for row in rows if row.get("bastion_id") == "b1" or (table is commands and row["session_id"] != "other")
    ]
    return [row for row in mine if table is not sessions or row["status"] != "active"]


async def test_a_value_that_was_changed(trail: Trail, owned: Rows) -> None:
    """In each column of each table, in rows that are chosen by chance."""
    rng = random.Random(5)
    for table in TABLES:
        rows = own(table, await owned.all(table))
        for column in table.c:
            if column.name == "position" or column in NOT_TOLD:
                continue
            for row in rng.sample(rows[:-3] if table is events else rows, 2):
                value = another(rng, column, row[column.name])
                await owned.change(table, row, {column.name: value})
                found = named(await trail.compare())
                await owned.restore()
                if column in KEYS:
                    assert {What.REMOVED, What.ADDED} >= {what for what, _, _ in found}, (column, found)
                    renamed = name_of(table, row | {column.name: value})
                    assert (What.ADDED, table.name, renamed) in found, (column, row, found)
                elif table is events and column.name in ("event", "session_id"):
                    # what means something for another table is missed there as well
                    assert (What.CHANGED, table.name, name_of(table, row)) in found, (column, row, found)
                else:
                    assert found == {(What.CHANGED, table.name, name_of(table, row))}, (column, row, value)
    assert named(await trail.compare()) == set()


async def test_a_row_that_was_removed_and_one_that_was_added(trail: Trail, owned: Rows) -> None:
    rng = random.Random(7)
    entries = {row["id"]: row["entry"] for row in await owned.all(events)}
    for _ in range(CHANGES):
        table = rng.choice(TABLES)
        rows = own(table, await owned.all(table))
        if rng.random() < 0.5:
            following = {row["position"] - 1 for row in rows if row.get("event") == "audit.verified"}
            row = rng.choice([row for row in rows[:-1] if table is not events or row["position"] not in following])
            await owned.remove(table, row)
            findings = (await trail.compare()).findings
            found = {(one.what, one.table, one.row) for one in findings}
            where = name_of(table, row)
            if table is not sessions:
                line = row["entry"] if table is events else entries[row["command_id"]]
                where = f"entry {json.loads(line)['seq']}"
            expected = (What.REMOVED, table.name, where)
        else:
            row = dict(rng.choice(rows))
            row[{"events": "id", "commands": "command_id", "sessions": "session_id"}[table.name]] = uuid.uuid4().hex
            await owned.add(table, row)
            added = next(
                one
                for one in await owned.all(table)
                if set(row.items()) - {("position", row.get("position"))} <= set(one.items())
            )
            found = named(await trail.compare())
            expected = (What.ADDED, table.name, name_of(table, added))
            assert found == {expected}
        await owned.restore()
        assert expected in found, (table.name, row, found)


async def test_a_byte_of_an_entry(trail: Trail, owned: Rows) -> None:
    rng = random.Random(9)
    rows = own(events, await owned.all(events))
    for _ in range(CHANGES):
        row = rng.choice(rows)
        at = rng.randrange(len(row["entry"]))
        byte = rng.choice([chr(one) for one in range(32, 127) if chr(one) != row["entry"][at]])
        await owned.change(events, row, {"entry": row["entry"][:at] + byte + row["entry"][at + 1 :]})
        assert named(await trail.compare()) == {(What.CHANGED, "events", f"row {row['position']}")}
        await owned.change(events, row, {"entry": row["entry"]})


async def test_a_session_that_was_ended_or_refused_in_the_database_only(trail: Trail, owned: Rows) -> None:
    (row,) = [row for row in await owned.all(sessions) if row["session_id"] == "runs"]
    for status in ("ended", "refused", "killed"):
        await owned.change(sessions, row, {"status": status})
        assert named(await trail.compare()) == {(What.CHANGED, "sessions", "session runs")}


async def test_values_of_no_type_at_all(trail: Trail, owned: Rows) -> None:
    """SQLite takes anything in any column."""
    if trail.engine.dialect.name == "postgresql":
        return
    row = (await owned.all(events))[3]
    async with trail.engine.begin() as connection:
        where = bindparam("position", row["position"])
        await connection.execute(text("UPDATE events SET time = 'soon' WHERE position = :position").bindparams(where))
    assert named(await trail.compare()) == {(What.CHANGED, "events", f"row {row['position']}")}
