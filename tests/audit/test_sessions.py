import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit import database as database_module
from bastion.audit import sessions as sessions_module
from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event, entry
from bastion.audit.search import Filters, Search
from bastion.audit.sessions import SessionRow, SessionRows
from bastion.audit.sinks import EventTable
from bastion.config import Database
from bastion.errors import Reason, Unavailable
from bastion.model import Address, Container, ContainerState
from tests.audit.sections import audit
from tests.audit.test_database import limited_role
from tests.audit.trail import Trail, one_session
from tests.audit.waiting import eventually
from tests.servers.postgres import Postgres


def container(app: str = "web", instance: int = 1) -> Container:
    address = Address(app, "worker", instance)
    return Container("local", "f00d" * 16, "web_1", "image", {}, ContainerState.RUNNING, address)


async def begin(rows: SessionRows, session_id: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "connection_id": "c1",
        "user": "alice",
        "source_ip": "192.0.2.7",
        "container": container(),
        "terminal": True,
        "command": None,
    }
    await rows.begin(session_id=session_id, **(values | changes))


async def end(database: AsyncEngine, session_id: str, status: str) -> None:
    """As the log does."""
    fields = dict.fromkeys(Event.SESSION_END.required, "x") | {"session_id": session_id, "status": status}
    await EventTable(database).write([entry(Event.SESSION_END, "b1", fields)])


async def status(rows: SessionRows) -> dict[str, str]:
    try:
        return {row.session_id: row.status for row in await Search(rows._database).sessions(Filters(), limit=1000)}
    except Unavailable:
        return {}


@pytest.fixture
async def rows(database: AsyncEngine) -> AsyncIterator[SessionRows]:
    async with SessionRows(database, "b1") as made:
        yield made


async def test_a_session_from_begin_to_end(rows: SessionRows, database: AsyncEngine) -> None:
    before = datetime.now(UTC)
    await begin(rows, "s1", command="id\0\n", node_ip="10.0.0.1")
    (row,) = await Search(rows._database).sessions(Filters())
    assert row == SessionRow(
        session_id="s1",
        connection_id="c1",
        bastion_id="b1",
        user="alice",
        source_ip="192.0.2.7",
        app_name="web",
        proc_name="worker",
        instance_no=1,
        engine="local",
        container_id="f00d" * 16,
        node_ip="10.0.0.1",
        terminal=True,
        command="id\\x00\n",
        status="active",
        created_at=row.created_at,
        ended_at=None,
        updated_at=row.created_at,
    )
    assert row.created_at.tzinfo is UTC
    await end(database, "s1", "ended")
    (over,) = await Search(rows._database).sessions(Filters())
    assert over.status == "ended"
    assert over.ended_at is not None
    assert before <= row.created_at <= over.ended_at == over.updated_at <= datetime.now(UTC)


async def test_the_first_end_stands(rows: SessionRows, database: AsyncEngine) -> None:
    await begin(rows, "s1")
    await end(database, "s1", "disconnected")
    await end(database, "s1", "ended")
    assert await status(rows) == {"s1": "disconnected"}


async def test_what_a_crash_left_is_lost_and_only_that(rows: SessionRows, database: AsyncEngine) -> None:
    await begin(rows, "over")
    await end(database, "over", "ended")
    await begin(rows, "left")
    async with SessionRows(database, "b2") as others:
        await begin(others, "elsewhere")
    (lost,) = await rows.close_lost()
    assert (lost.session_id, lost.status) == ("left", "lost")
    assert lost.ended_at is not None
    assert await status(rows) == {"over": "ended", "left": "lost", "elsewhere": "active"}
    assert await rows.close_lost() == []
    # The one that was taken for dead was an old process that still drains.
    await end(database, "left", "ended")
    assert (await status(rows))["left"] == "ended"


async def test_where_it_is_not_strict_the_row_comes_with_the_event(
    rows: SessionRows, database: AsyncEngine, tmp_path: Path
) -> None:
    away = create_engine(Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/nowhere/b.db")))
    trail = Trail(tmp_path, database)
    async with trail.log() as log:
        async with SessionRows(away, "b1", strict=False) as without:
            await one_session(log, without, "late", "true")
        await one_session(log, rows, "usual", "true")
    found = {row.session_id: row for row in await Search(database).sessions(Filters())}
    late, usual = found["late"], found["usual"]
    assert late.status == "ended"
    assert late.created_at < usual.created_at
    changed = {"session_id": "usual", "instance_no": usual.instance_no}
    moments = {name: getattr(usual, name) for name in ("created_at", "ended_at", "updated_at")}
    assert replace(late, **changed, **moments) == usual
    assert len(await Search(database).commands(Filters(session="late"))) == 3
    assert (await trail.compare()).findings == []
    await away.dispose()


async def test_those_that_are_over_are_the_bastions_own(rows: SessionRows, database: AsyncEngine) -> None:
    async with SessionRows(database, "b2") as others:
        for name in ("ended", "runs"):
            await begin(rows, name)
            await begin(others, f"other {name}")
    for name in ("ended", "other ended"):
        await end(database, name, "ended")
    assert await rows.over(["ended", "runs", "other ended", "other runs", "never"]) == ["ended"]


async def test_many_at_once(rows: SessionRows, database: AsyncEngine) -> None:
    async def one(number: int) -> None:
        await begin(rows, f"s{number:03}")
        await end(database, f"s{number:03}", "ended")

    await asyncio.gather(*(one(number) for number in range(200)))
    assert set((await status(rows)).values()) == {"ended"}
    assert len(await status(rows)) == 200


async def test_a_row_that_can_not_be_is_refused_alone(rows: SessionRows) -> None:
    """An instance number is a label of the container's, so it may be anything."""
    results = await asyncio.gather(
        *(begin(rows, f"s{n}", container=container(instance=10**30 if n == 2 else 10**12)) for n in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 2 + [Unavailable] + [type(None)] * 2
    assert len(await Search(rows._database).sessions(Filters())) == 4


async def test_no_tables_no_session(empty_database: Database) -> None:
    engine = create_engine(empty_database)
    async with SessionRows(engine, "b1") as rows:
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match=r'unable to open database file|relation "sessions" does not exist'):
                await begin(rows, "s1")
            with pytest.raises(Unavailable):
                await Search(rows._database).sessions(Filters())
        await upgrade(empty_database)
    await engine.dispose()


async def test_a_caller_that_is_cancelled_leaves_no_active_row(rows: SessionRows) -> None:
    for turns in range(8):
        task = asyncio.create_task(begin(rows, f"s{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await begin(rows, "last")
    found = await status(rows)
    assert found.pop("last") == "active"
    assert set(found.values()) <= {"refused"}


@pytest.fixture
async def own_database(own_postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    config = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    yield engine
    await engine.dispose()


async def test_the_database_is_killed_and_comes_back(own_postgres: Postgres, own_database: AsyncEngine) -> None:
    async with SessionRows(own_database, "b1") as rows:
        await begin(rows, "s1")
        await begin(rows, "s2")
        own_postgres.kill()
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as caught:
            await begin(rows, "s3")
        assert asyncio.get_running_loop().time() - began < 8
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
        assert "connection" in caught.value.log_text
        assert str(own_postgres.folder) not in caught.value.user_text
        await asyncio.to_thread(own_postgres.start)
        await begin(rows, "s4")  # at the first try, and not over a connection that died
        assert await status(rows) | {"s3": ""} == {"s1": "active", "s2": "active", "s3": "", "s4": "active"}


async def test_an_idle_pool_survives_a_restart_of_the_database(
    own_postgres: Postgres, own_database: AsyncEngine
) -> None:
    async with SessionRows(own_database, "b1") as rows:
        await begin(rows, "s1")
        await asyncio.to_thread(own_postgres.stop)
        await asyncio.to_thread(own_postgres.start)
        await begin(rows, "s2")
        assert await status(rows) == {"s1": "active", "s2": "active"}


async def test_a_database_that_hangs_refuses_in_time_and_leaves_no_active_row(
    own_postgres: Postgres, own_database: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "BEGIN_LIMIT", 0.5)
    monkeypatch.setattr(sessions_module, "ATTEMPT_LIMIT", 1.0)
    async with SessionRows(own_database, "b1") as rows:
        await begin(rows, "s1")
        own_postgres.signal(signal.SIGSTOP)
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable, match="no answer in time"):
                await begin(rows, "s2")
        own_postgres.signal(signal.SIGCONT)

        async def told() -> bool:
            found = await status(rows)
            return found.get("s1") == "active" and found.get("s2", "refused") == "refused"

        await eventually(told, "it is refused")
        await begin(rows, "s3")
        assert (await status(rows)).get("s2", "refused") == "refused"


async def test_sqlite_that_another_process_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SQLITE_WAIT", 0.2)
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/b.db"))
    await upgrade(config)
    engine = create_engine(config)
    async with SessionRows(engine, "b1") as rows:
        await begin(rows, "s1")
        with contextlib.closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Unavailable, match=r"b\.db: database is locked"):
                await begin(rows, "s2")
        await begin(rows, "s3")
        found = await status(rows)
        assert found.pop("s2", "refused") == "refused"
        assert found == {"s1": "active", "s3": "active"}
    await engine.dispose()


async def test_sqlite_on_a_full_disk(small_disk: Path) -> None:
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{small_disk}/b.db"))
    await upgrade(config)
    engine = create_engine(config)
    async with SessionRows(engine, "b1") as rows:
        await begin(rows, "s1")
        filler = small_disk / "other"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as output:
            while True:
                output.write(b"x" * 4096)
        with pytest.raises(Unavailable, match=r"database or disk is full|disk I/O error"):
            await begin(rows, "s2", command="x" * 100_000)
        filler.unlink()
        await begin(rows, "s3")
        assert await status(rows) == {"s1": "active", "s3": "active"}
    await engine.dispose()


async def test_the_role_of_db_grants_is_enough(postgres: Postgres, tmp_path: Path) -> None:
    """Sessions and events as the limited role: what else it may do is in test_database.py."""
    from bastion.audit.events import Event
    from bastion.audit.log import AuditLog

    name = postgres.create_database()
    await upgrade(Database(url=SecretStr(postgres.url(name))))
    role = limited_role(postgres, name).replace(" ", "%20").replace('"', "%22")
    engine = create_engine(Database(url=SecretStr(postgres.url(name, user=role))))
    async with (
        SessionRows(engine, "b1") as rows,
        AuditLog(audit(None, stdout=True), "b1", engine, tmp_path) as log,
    ):
        await begin(rows, "s1")
        await end(engine, "s1", "ended")
        await begin(rows, "s2")
        assert len(await rows.close_lost()) == 1
        assert await status(rows) == {"s1": "ended", "s2": "lost"}
        await log.emit(Event.CONFIG_RELOADED)
    with postgres.connect(name) as owner:
        assert owner.execute("SELECT event FROM events WHERE event NOT LIKE 'audit.%'").fetchall() == [
            ("session.end",),
            ("config.reloaded",),
        ]
    await engine.dispose()
