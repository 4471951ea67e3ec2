"""A log and its database, as a bastion writes them, and what somebody does to the rows who owns the database."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.files import files, lines_of
from bastion.audit.sessions import SessionRows
from bastion.audit.tables import events, sessions
from bastion.audit.verify import What
from bastion.model import Address, Container, ContainerState
from tests.audit.owner import KEYS, NOT_TOLD, TABLES, Rows, another, name_of, named, own
from tests.audit.trail import CONNECTION, Trail, one_session


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


@pytest.fixture
async def owned(trail: Trail) -> AsyncIterator[Rows]:
    async with trail.engine.connect() as connection:
        rows = Rows(connection)
        await rows.prepare()
        yield rows


async def test_what_was_written_is_as_it_was_written(trail: Trail) -> None:
    compared = await trail.compare()
    assert (compared.findings, compared.older, compared.waiting) == ([], 0, 0)
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


async def test_what_a_crash_kept_from_the_database_comes_with_the_next_start(trail: Trail) -> None:
    """Two starts of which the spool is lost; the entries of one are in a file that was rotated meanwhile."""
    away = trail.away()
    for name in ("audit.jsonl.2", None):
        async with trail.log(away, state="gone") as log, SessionRows(trail.engine, "b1") as rows:
            await one_session(log, rows, f"late{name}", None)
        if name:
            trail.file.rename(trail.folder / name)
    await away.dispose()
    compared = await trail.compare()
    assert compared.findings == []
    assert compared.waiting > 10
    async with trail.log():
        pass
    again = await trail.compare()
    assert (again.findings, again.waiting) == ([], 0)
    assert again.rows > compared.rows + compared.waiting
    (told,) = [entry for entry in trail.entries() if entry["event"] == "audit.caught_up"]
    assert (told["late"], told["removed"]) == (compared.waiting - 2, 0)  # two sessions waited for their session.start


async def test_removed_last_rows_are_found_and_written_again_by_the_next_start(trail: Trail, owned: Rows) -> None:
    """Also those in front of a start, where a crash could once have been the reason."""
    rows = own(events, await owned.all(events))
    second = [at for at, row in enumerate(rows) if row["event"] == "audit.verified"][2]
    for gone in (rows[second - 1 : second], rows[-1:], rows[-3:]):
        for row in gone:
            await owned.remove(events, row)
        seqs = [json.loads(row["entry"])["seq"] for row in gone]
        which = f"entry {seqs[0]}" if len(seqs) == 1 else f"entries {seqs[0]} to {seqs[-1]}"
        compared = await trail.compare()
        told_of = {one for one in named(compared) if one[1] == "events"}  # commands without their event are found, too
        assert told_of == {(What.REMOVED, "events", which)}
        assert compared.waiting == 0
        if len(gone) == 1:
            await owned.restore()
    async with trail.log():
        pass
    assert named(await trail.compare()) == set()
    (told,) = [entry for entry in trail.entries() if entry["event"] == "audit.caught_up"]
    assert (told["late"], told["removed"]) == (3, 3)


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
