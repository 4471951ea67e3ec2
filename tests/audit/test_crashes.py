"""kill -9 at any moment, of the bastion and of PostgreSQL: what was acknowledged is in the database in the end."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.comparison import Compared, compare, last_position
from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.audit.files import lines_of
from bastion.audit.log import AuditLog
from bastion.audit.progress import under_way
from bastion.audit.sessions import SessionRows
from bastion.audit.spool import Spool
from bastion.audit.tables import commands, events, sessions
from bastion.config import Audit, Database
from tests.audit.test_sessions import begin
from tests.audit.waiting import eventually
from tests.servers.postgres import Postgres

ROUNDS = 8
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload([__name__])
WHO = {"connection_id": "c", "user": "alice", "source_ip": "::1", "address": "web.w.1", "container_id": "i"}


async def one_session(rows: SessionRows, log: AuditLog, session_id: str, told: Any) -> None:
    """A session with one command; `told` hears of each thing that was acknowledged."""
    await begin(rows, session_id)
    told(("begun", session_id))
    bound = log.bind(session_id=session_id, engine="e", **WHO)
    content = f"echo {session_id}"
    await bound.emit(Event.SESSION_COMMAND, content=content, confidence="exact", at=1.5, prompt="$ ", degraded=False)
    told(("command", content))
    await bound.emit(Event.SESSION_END, status="ended", exit_status=0)
    told(("ended", session_id))


def section(folder: Path) -> Audit:
    """With a key that the next process has, too."""
    return Audit(file=folder / "audit.jsonl", signing_key=folder / "audit_key")


async def work(database: Database, folder: Path, number: int, told: Any) -> None:
    engine = create_engine(database)
    file = section(folder)
    async with AuditLog(file, "b1", engine, folder) as log, SessionRows(engine, "b1") as rows:
        await log.settle()
        await rows.close_lost()
        told(("ready", ""))
        for count in range(10_000):
            ids = [f"s{number}-{count}-{n}" for n in range(4)]
            await asyncio.gather(*(one_session(rows, log, session_id, told) for session_id in ids))


def process(database: Database, folder: Path, number: int, acknowledged: Connection) -> None:
    asyncio.run(work(database, folder, number, acknowledged.send))


def killed_after(seconds: float, database: Database, folder: Path, number: int) -> list[tuple[str, str]]:
    """What a process acknowledged that was killed so many seconds after it began to work."""
    ours, theirs = fresh.Pipe(duplex=False)
    running = fresh.Process(target=process, args=(database, folder, number, theirs))
    running.start()
    theirs.close()
    assert ours.poll(30), "it starts"
    assert ours.recv() == ("ready", "")
    found = [ours.recv() for _ in range(3)]
    deadline = asyncio.get_running_loop().time() + seconds
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        if ours.poll(left):
            found.append(ours.recv())
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    running.join(10)
    with contextlib.suppress(EOFError):
        while ours.poll(0):
            found.append(ours.recv())
    ours.close()
    return found


async def is_all_there(engine: AsyncEngine, acknowledged: list[tuple[str, str]]) -> None:
    async with engine.connect() as connection:
        status = {
            row.session_id: row.status
            for row in await connection.execute(select(sessions.c.session_id, sessions.c.status))
        }
        typed = list((await connection.execute(select(commands.c.content))).scalars())
        lines = list((await connection.execute(select(events.c.entry).order_by(events.c.position))).scalars())
    logged = [json.loads(line) for line in lines]
    assert len(logged) == len({event["id"] for event in logged})
    assert len(typed) == len(set(typed))
    ended = {event["session_id"] for event in logged if event["event"] == "session.end"}
    assert {value for what, value in acknowledged if what == "begun"} <= status.keys()
    assert {value for what, value in acknowledged if what == "command"} <= set(typed)
    over = {value for what, value in acknowledged if what == "ended"}
    assert over <= ended
    assert {status[session_id] for session_id in over} <= {"ended"}
    assert over


async def test_the_bastion_is_killed_at_any_moment(empty_database: Database, tmp_path: Path) -> None:
    await upgrade(empty_database)
    acknowledged = []
    for number in range(ROUNDS):
        acknowledged += killed_after(random.uniform(0, 0.4), empty_database, tmp_path, number)
    engine = create_engine(empty_database)
    async with AuditLog(section(tmp_path), "b1", engine, tmp_path) as log:
        assert await log.settle()
    await is_all_there(engine, acknowledged)
    await engine.dispose()


def killed_before_the_spool(database: Database, folder: Path) -> None:
    """A process that ends where its log has a session.command, and its spool has not: no signal could be timed so."""
    append = Spool.append

    def append_or_die(self: Spool, lines: Sequence[bytes]) -> None:
        if any(b'"session.command"' in line for line in lines):
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, lines)

    Spool.append = append_or_die  # type: ignore[method-assign]
    asyncio.run(work(database, folder, 0, lambda _: None))


async def test_killed_between_the_log_and_the_spool(empty_database: Database, tmp_path: Path) -> None:
    """What the log alone has is no tampering before the next start, and in the database after it."""
    await upgrade(empty_database)
    running = fresh.Process(target=killed_before_the_spool, args=(empty_database, tmp_path))
    running.start()
    await asyncio.to_thread(running.join, 30)
    assert running.exitcode == -signal.SIGKILL
    engine = create_engine(empty_database)
    logged = [line.raw.decode() for line in lines_of(tmp_path / "audit.jsonl")]
    assert any('"session.command"' in line for line in logged)
    assert [line for line in await entries(engine) if '"session.command"' in line] == []

    async def compared() -> Compared:
        position, way = await last_position(engine), under_way(tmp_path)
        return await compare(engine, position, way, lines_of(tmp_path / "audit.jsonl"), 10**9)

    crashed = await compared()
    assert crashed.findings == []
    assert crashed.rows < len(logged)
    async with AuditLog(section(tmp_path), "b1", engine, tmp_path) as log:
        assert await log.settle()
        assert (await entries(engine))[: len(logged)] == logged
    after = await compared()
    await engine.dispose()
    assert after.findings == []
    assert after.rows == len(list(lines_of(tmp_path / "audit.jsonl")))


async def entries(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(select(events.c.entry).order_by(events.c.position)))


async def _has(acknowledged: list[tuple[str, str]], count: int) -> bool:
    return len(acknowledged) >= count


async def test_postgresql_is_killed_at_any_moment(own_postgres: Postgres, tmp_path: Path) -> None:
    database = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(database)
    engine = create_engine(database)
    acknowledged: list[tuple[str, str]] = []
    async with (
        AuditLog(section(tmp_path), "b1", engine, tmp_path) as log,
        SessionRows(engine, "b1") as rows,
    ):
        numbers = iter(range(1_000_000))

        async def on_and_on() -> None:
            while True:
                with contextlib.suppress(Exception):  # a session that can not begin is refused, and none
                    await one_session(rows, log, f"s{next(numbers)}", acknowledged.append)
                await asyncio.sleep(0.002)

        workers = [asyncio.create_task(on_and_on()) for _ in range(4)]
        for _ in range(4):
            await eventually(partial(_has, acknowledged, len(acknowledged) + 12), "it works")
            await asyncio.sleep(random.uniform(0, 0.1))
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.sleep(random.uniform(0, 0.3))
            await asyncio.to_thread(own_postgres.start)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await eventually(log.settle, "the database has it all", 30)
    await is_all_there(engine, acknowledged)
    await engine.dispose()
