import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit import database as database_module
from bastion.audit import sessions as sessions_module
from bastion.audit.database import create_engine, upgrade
from bastion.audit.sessions import SessionRow, SessionRows
from bastion.config import Database
from bastion.errors import Reason, Unavailable
from bastion.model import Address, Container, ContainerState
from tests.audit.test_database import limited_role
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


async def status(rows: SessionRows) -> dict[str, str]:
    try:
        return {row.session_id: row.status for row in await rows.list()}
    except Unavailable:
        return {}


@pytest.fixture
async def rows(database: AsyncEngine) -> AsyncIterator[SessionRows]:
    async with SessionRows(database, "b1") as made:
        yield made


async def test_a_session_from_begin_to_end(rows: SessionRows) -> None:
    before = datetime.now(UTC)
    await begin(rows, "s1", command="id\0\n", node_ip="10.0.0.1")
    (row,) = await rows.list()
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
    await rows.end("s1", "ended")
    (over,) = await rows.list()
    assert over.status == "ended"
    assert over.ended_at is not None
    assert before <= row.created_at <= over.ended_at == over.updated_at <= datetime.now(UTC)


async def test_the_first_end_stands(rows: SessionRows) -> None:
    await begin(rows, "s1")
    await rows.end("s1", "disconnected")
    await rows.end("s1", "ended")
    assert await status(rows) == {"s1": "disconnected"}


async def test_what_is_listed(rows: SessionRows) -> None:
    for number, (user, app) in enumerate([("alice", "web"), ("bob", "web"), ("alice", "shop.front")]):
        await begin(rows, f"s{number}", user=user, container=container(app))
    await rows.end("s0", "ended")

    async def listed(**filters: Any) -> list[str]:
        return [row.session_id for row in await rows.list(**filters)]

    assert await listed() == ["s2", "s1", "s0"]
    assert await listed(limit=2) == ["s2", "s1"]
    assert await listed(user="alice") == ["s2", "s0"]
    assert await listed(user="alice", active=True) == ["s2"]
    assert await listed(app="web") == ["s1", "s0"]
    assert await listed(app="w%") == []
    assert await listed(user="' OR 1=1 --") == []


async def test_what_a_crash_left_is_lost_and_only_that(rows: SessionRows, database: AsyncEngine) -> None:
    await begin(rows, "over")
    await rows.end("over", "ended")
    await begin(rows, "left")
    async with SessionRows(database, "b2") as others:
        await begin(others, "elsewhere")
    (lost,) = await rows.close_lost()
    assert (lost.session_id, lost.status) == ("left", "lost")
    assert lost.ended_at is not None
    assert await status(rows) == {"over": "ended", "left": "lost", "elsewhere": "active"}
    assert await rows.close_lost() == []
    # The one that was taken for dead was an old process that still drains.
    await rows.end("left", "ended")
    assert (await status(rows))["left"] == "ended"


async def test_many_at_once(rows: SessionRows) -> None:
    async def one(number: int) -> None:
        await begin(rows, f"s{number:03}")
        await rows.end(f"s{number:03}", "ended")

    await asyncio.gather(*(one(number) for number in range(200)))
    assert set((await status(rows)).values()) == {"ended"}
    assert len(await rows.list(limit=1000)) == 200


async def test_a_row_that_can_not_be_is_refused_alone(rows: SessionRows) -> None:
    """An instance number is a label of the container's, so it may be anything."""
    results = await asyncio.gather(
        *(begin(rows, f"s{n}", container=container(instance=10**30 if n == 2 else 10**12)) for n in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 2 + [Unavailable] + [type(None)] * 2
    assert len(await rows.list()) == 4


async def test_no_tables_no_session(empty_database: Database) -> None:
    engine = create_engine(empty_database)
    async with SessionRows(engine, "b1") as rows:
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match=r'unable to open database file|relation "sessions" does not exist'):
                await begin(rows, "s1")
            with pytest.raises(Unavailable):
                await rows.list()
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
        await rows.end("s1", "ended")
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as caught:
            await begin(rows, "s3")
        assert asyncio.get_running_loop().time() - began < 8
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
        assert "connection" in caught.value.log_text
        assert str(own_postgres.folder) not in caught.value.user_text
        await rows.end("s2", "disconnected")
        await asyncio.to_thread(own_postgres.start)

        async def told() -> bool:
            return await status(rows) == {"s1": "ended", "s2": "disconnected"}

        await eventually(told, "the ends follow")
        await begin(rows, "s4")  # at the first try, and not over a connection that died
        await rows.end("s4", "ended")
        assert (await status(rows))["s4"] == "ended"


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
            await rows.end("s1", "ended")
        own_postgres.signal(signal.SIGCONT)

        async def told() -> bool:
            found = await status(rows)
            return found.get("s1") == "ended" and found.get("s2", "refused") == "refused"

        await eventually(told, "the ends follow")
        await begin(rows, "s3")
        assert (await status(rows)).get("s2", "refused") == "refused"


async def test_the_end_is_told_at_close(own_postgres: Postgres, own_database: AsyncEngine) -> None:
    async with SessionRows(own_database, "b1") as rows:
        await begin(rows, "s1")
        own_postgres.kill()
        await rows.end("s1", "ended")
        await asyncio.to_thread(own_postgres.start)
    assert await status(SessionRows(own_database, "b1")) == {"s1": "ended"}


async def test_close_gives_up_in_time_and_the_next_start_finds_it(
    own_postgres: Postgres,
    own_database: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sessions_module, "CLOSE_LIMIT", 0.5)
    async with asyncio.timeout(10):
        async with SessionRows(own_database, "b1") as rows:
            await begin(rows, "s1")
            own_postgres.kill()
            await rows.end("s1", "ended")
    assert "1 sessions could not be marked as ended" in caplog.text
    await asyncio.to_thread(own_postgres.start)
    async with SessionRows(own_database, "b1") as rows:
        assert [row.session_id for row in await rows.close_lost()] == ["s1"]


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
            await rows.end("s1", "ended")
        await begin(rows, "s3")
        assert await status(rows) == {"s1": "ended", "s3": "active"}
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
        await rows.end("s1", "ended")
        filler.unlink()
        await begin(rows, "s3")
        assert await status(rows) == {"s1": "ended", "s3": "active"}
    await engine.dispose()


async def test_the_role_of_db_grants_is_enough(postgres: Postgres) -> None:
    """Sessions and events as the limited role: what else it may do is in test_database.py."""
    from bastion.audit.events import Event
    from bastion.audit.log import AuditLog
    from bastion.config import Audit

    name = postgres.create_database()
    await upgrade(Database(url=SecretStr(postgres.url(name))))
    role = limited_role(postgres, name).replace(" ", "%20").replace('"', "%22")
    engine = create_engine(Database(url=SecretStr(postgres.url(name, user=role))))
    async with SessionRows(engine, "b1") as rows, AuditLog(Audit(file=None, stdout=True), "b1", engine) as log:
        await begin(rows, "s1")
        await rows.end("s1", "ended")
        await begin(rows, "s2")
        assert len(await rows.close_lost()) == 1
        assert await status(rows) == {"s1": "ended", "s2": "lost"}
        await log.emit(Event.CONFIG_RELOADED)
    with postgres.connect(name) as owner:
        assert owner.execute("SELECT event FROM events").fetchall() == [("config.reloaded",)]
    await engine.dispose()
