import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit import delivery as delivery_module
from bastion.audit import log as log_module
from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Entry, Event
from bastion.audit.files import lines_of
from bastion.audit.log import AuditLog
from bastion.audit.tables import events
from bastion.audit.verify import verify
from bastion.config import Database
from bastion.errors import ConfigError, Reason, Unavailable
from tests.audit.sections import OWN, audit, others
from tests.audit.waiting import eventually
from tests.servers.postgres import Postgres
from tests.servers.process import wait_until

CONNECTION = {"connection_id": "c1", "source_ip": "192.0.2.7", "source_port": 40022}


def lines(path: Path) -> list[dict[str, Any]]:
    return others(json.loads(line) for line in path.read_text().splitlines())


async def rows(engine: AsyncEngine) -> list[dict[str, Any]]:
    try:
        async with engine.connect() as connection:
            found = await connection.execute(select(events).order_by(events.c.position))
            return [dict(row) for row in found.mappings()]
    except SQLAlchemyError:  # away
        return []


async def emit_numbers(log: AuditLog, *numbers: int) -> None:
    for number in numbers:
        await log.emit(Event.CONFIG_RELOADED, number=number)


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    parsed = [json.loads(entry["entry"]) if "entry" in entry else entry for entry in entries]
    return [entry["number"] for entry in parsed if "number" in entry]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/bastion.db"))
    await upgrade(config)
    engine = create_engine(config)
    yield engine
    await engine.dispose()


async def test_an_event_is_in_the_file_when_emit_returns_and_then_in_the_table(
    tmp_path: Path, file: Path, database: AsyncEngine
) -> None:
    async with AuditLog(audit(file), "b1", database, tmp_path) as log:
        connection = log.bind(**CONNECTION)
        await connection.emit(Event.CONNECTION_OPEN)
        await connection.bind(user="alice").emit(
            Event.USER_LOGIN_FAILED, method="ldap", reason=Reason.WRONG_CREDENTIALS
        )
        written = lines(file)
    assert [entry["event"] for entry in written] == ["connection.open", "user.login_failed"]
    assert CONNECTION.items() <= written[0].items()
    assert written[1].items() >= {"user": "alice", "reason": "wrong_credentials", "bastion_id": "b1"}.items()
    stored = others(await rows(database))
    assert [json.loads(row["entry"]) for row in stored] == written
    assert stored[1]["user"] == "alice"
    assert stored[1]["source_ip"] == "192.0.2.7"
    assert stored[1]["time"].isoformat(timespec="microseconds").replace("+00:00", "Z") == written[1]["time"]
    assert file.stat().st_mode & 0o777 == 0o600


async def test_an_identity_is_bound_once(tmp_path: Path, file: Path, sqlite: AsyncEngine) -> None:
    async with AuditLog(audit(file), "b1", sqlite, tmp_path) as log:
        bound = log.bind(user="alice")
        with pytest.raises(TypeError, match="user: bound already"):
            bound.bind(user="bob")
        with pytest.raises(TypeError, match="user: bound already"):
            await bound.emit(Event.RECORDING_VIEWED, user="bob", session_id="s")
        bound.bind(user="alice")


async def test_many_at_once_keep_their_order(tmp_path: Path, file: Path, database: AsyncEngine) -> None:
    async with AuditLog(audit(file), "b1", database, tmp_path) as log:
        await asyncio.gather(*(emit_numbers(log, n) for n in range(2000)))
        assert numbers(lines(file)) == list(range(2000))
    assert numbers(await rows(database)) == list(range(2000))


async def test_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str], sqlite: AsyncEngine) -> None:
    async with AuditLog(audit(None, stdout=True), "b1", sqlite, tmp_path) as log:
        await emit_numbers(log, 1)
        out = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["event"] for line in out] == [*OWN, "config.reloaded"]


async def test_all_sinks_have_it(
    tmp_path: Path, file: Path, capfd: pytest.CaptureFixture[str], sqlite: AsyncEngine
) -> None:
    async with AuditLog(audit(file, stdout=True), "b1", sqlite, tmp_path) as log:
        await emit_numbers(log, 1, 2)
    assert capfd.readouterr().out == file.read_text()
    assert [row["entry"] for row in await rows(sqlite)] == file.read_text().splitlines()


async def test_a_file_that_can_not_be_written_stops_the_start(tmp_path: Path, sqlite: AsyncEngine) -> None:
    with pytest.raises(ConfigError, match=r"audit\.file .*: the audit log can not be written: .*Is a directory"):
        async with AuditLog(audit(tmp_path), "b1", sqlite, tmp_path / "state"):
            pass


async def test_what_can_not_be_logged_is_refused(
    tmp_path: Path, sqlite: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "log" / "audit.jsonl"
    async with AuditLog(audit(file), "b1", sqlite, tmp_path) as log:
        await emit_numbers(log, 1)
        moved = file.parent.rename(tmp_path / "moved")
        for number in (2, 3):
            with pytest.raises(Unavailable) as caught:
                await emit_numbers(log, number)
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
        assert "No such file" in caught.value.log_text
        assert str(tmp_path) not in caught.value.user_text
        moved.rename(file.parent)
        await emit_numbers(log, 4)
        await eventually(lambda: _events(file, "audit.recovered"), "the log says that it was away")
    assert numbers(lines(file)) == [1, 4]
    # Operators are told once of each outage; what was refused is nowhere, and counted.
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert [entry["dropped"] for entry in await _events(file, "audit.recovered")] == [2]
    assert [row["entry"] for row in await rows(sqlite)] == file.read_text().splitlines()


async def test_best_effort_goes_on_and_logs_it_afterwards(tmp_path: Path, sqlite: AsyncEngine) -> None:
    file = tmp_path / "log" / "audit.jsonl"
    async with AuditLog(audit(file, mode="best_effort"), "b1", sqlite, tmp_path) as log:
        moved = file.parent.rename(tmp_path / "moved")
        await emit_numbers(log, 1, 2, 3)
        moved.rename(file.parent)
        await eventually(lambda: _events(file, "audit.recovered"), "the log says that it was away")
        await emit_numbers(log, 4)
    assert sorted(numbers(lines(file))) == [1, 2, 3, 4]
    assert [row["entry"] for row in await rows(sqlite)] == file.read_text().splitlines()


async def _events(file: Path, name: str) -> list[dict[str, Any]]:
    return [entry for entry in lines(file) if entry["event"] == name]


async def test_a_file_that_hangs(tmp_path: Path, sqlite: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dead network file system does. What was given up is written once when it moves again, and chained."""
    monkeypatch.setattr(log_module, "WRITE_LIMIT", 0.5)
    monkeypatch.setattr(log_module, "CLOSE_LIMIT", 0.3)
    file, moving, sync = tmp_path / "audit.jsonl", threading.Event(), os.fdatasync
    async with AuditLog(audit(file, mode="best_effort"), "b1", sqlite, tmp_path) as lenient:
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: moving.wait(20) and sync(descriptor))
        await emit_numbers(lenient, 1, 2)
        moving.set()
        await eventually(lambda: _has(file, 2), "both are there")
    assert sorted(numbers(lines(file))) == [1, 2]
    moving.clear()
    async with asyncio.timeout(20):
        async with AuditLog(audit(file), "b1", sqlite, tmp_path) as log:
            with pytest.raises(Unavailable, match="no answer in time"):
                await emit_numbers(log, 3)
            moving.set()
            await eventually(lambda: _has(file, 3), "it was written after all")
            await emit_numbers(log, 4)
    assert verify(lines_of(file), None).findings == []


async def test_a_caller_that_is_cancelled_does_not_unwrite(tmp_path: Path, file: Path, sqlite: AsyncEngine) -> None:
    async with AuditLog(audit(file), "b1", sqlite, tmp_path) as log:
        for turns in range(20):
            # The second waits behind the first, which the thread is writing.
            tasks = [asyncio.create_task(emit_numbers(log, 2 * turns))]
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            tasks.append(asyncio.create_task(emit_numbers(log, 2 * turns + 1)))
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    written = numbers(lines(file))
    assert len(written) > 20
    assert set(range(1, 40, 2)) <= set(written)
    assert numbers(await rows(sqlite)) == written


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(value="\0")
@example(value="\udc80")
@given(value=st.text(st.characters(exclude_categories=())) | st.binary() | st.integers() | st.floats())
def test_hostile_values_reach_every_sink(tmp_path: Path, value: object, file: Path, empty_database: Database) -> None:
    """Also those that PostgreSQL does not take as text: NUL and lone surrogates."""

    async def check() -> None:
        await upgrade(empty_database)
        engine = create_engine(empty_database)
        async with AuditLog(audit(file), "b1", engine, tmp_path) as log:
            await log.emit(Event.RECORDING_VIEWED, user=value, session_id=value, address=value)
        assert [row["entry"] for row in await rows(engine)] == file.read_text().splitlines()
        await engine.dispose()

    asyncio.run(check())


async def test_emit_waits_until_the_event_is_spooled_but_not_for_a_spool_that_fails(
    tmp_path: Path, file: Path, sqlite: AsyncEngine
) -> None:
    spooled, write = asyncio.Event(), delivery_module.Delivery.write

    async def late(self: delivery_module.Delivery, batch: Sequence[Entry]) -> int:
        await spooled.wait()
        return await write(self, batch)

    async with AuditLog(audit(file), "b1", sqlite, tmp_path) as log:
        log._writers[-1]._write = late.__get__(log._delivery)  # where a write is as slow as this test needs it
        emitting = asyncio.create_task(emit_numbers(log, 1))
        await eventually(lambda: _has(file, 1), "the file has it")
        await asyncio.sleep(2 * log_module.LOOK)
        assert not emitting.done()
        spooled.set()
        await emitting
        (tmp_path / "spool").rename(tmp_path / "gone")
        for number in range(2, 5):
            began = time.monotonic()
            await emit_numbers(log, number)
            assert time.monotonic() - began < log_module.WRITE_LIMIT / 2
        (tmp_path / "gone").rename(tmp_path / "spool")
    assert numbers(await rows(sqlite)) == [1, 2, 3, 4]


@pytest.mark.alone
async def test_a_database_that_is_killed_and_comes_back(tmp_path: Path, own_postgres: Postgres, file: Path) -> None:
    config = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    async with AuditLog(audit(file), "b1", engine, tmp_path) as log:
        await emit_numbers(log, 0, 1, 2)
        await eventually(lambda: rows(engine), "the first events are in the table")
        running = asyncio.create_task(emit_numbers(log, *range(3, 1000)))
        await eventually(lambda: _has(file, 50), "some are written")
        await asyncio.to_thread(own_postgres.kill)
        await running
        slowest = 0.0
        for number in range(1000, 1300):
            began = time.monotonic()
            await emit_numbers(log, number)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 3, "a dead database slows nothing"
        assert numbers(lines(file)) == list(range(1300))
        await eventually(lambda: _events(file, "audit.failed"), "the log says so")
        assert len(await _events(file, "audit.failed")) == 1
        await asyncio.to_thread(own_postgres.start)
        await eventually(lambda: _events(file, "audit.recovered"), "the log follows")
    stored = await rows(engine)
    assert [row["entry"] for row in stored] == file.read_text().splitlines()  # all, once, in order
    assert (await _events(file, "audit.recovered"))[0]["dropped"] == 0
    await engine.dispose()


async def _has(file: Path, count: int) -> bool:
    return len(lines(file)) >= count


@pytest.mark.alone
async def test_a_database_that_hangs(
    tmp_path: Path,
    own_postgres: Postgres,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen, it accepts connections and answers nothing: nothing is slower for it, not even the end."""
    monkeypatch.setattr(delivery_module, "CLOSE_LIMIT", 1.0)
    config = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    async with AuditLog(audit(file), "b1", engine, tmp_path) as log:
        await emit_numbers(log, 0)
        await eventually(lambda: rows(engine), "the first event is in the table")
        own_postgres.signal(signal.SIGSTOP)
        async with asyncio.timeout(4):
            await emit_numbers(log, *range(1, 500))
        began = time.monotonic()
    assert time.monotonic() - began < 8
    own_postgres.signal(signal.SIGCONT)
    assert numbers(lines(file)) == list(range(500))
    async with AuditLog(audit(file), "b1", engine, tmp_path) as log:
        assert await log.settle(), "what waited on disk is in the table at the next start"
    assert numbers(await rows(engine)) == list(range(500))
    await engine.dispose()


async def test_what_the_database_never_gets_is_counted(
    tmp_path: Path, own_postgres: Postgres, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "CAPACITY", 5_000)
    monkeypatch.setattr(delivery_module, "SPOOL_LIMIT", 5_000)
    config = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    own_postgres.kill()
    async with AuditLog(audit(file), "b1", engine, tmp_path) as log:
        await emit_numbers(log, *range(200))
        await asyncio.to_thread(own_postgres.start)
        await eventually(lambda: _dropped(file), "the log says how many")
        assert await log.settle()
    missing = 200 - len(numbers(await rows(engine)))
    assert 0 < missing <= await _dropped(file) <= missing + 5  # audit.failed may be among them
    assert numbers(lines(file)) == list(range(200))
    assert numbers(await rows(engine)) == list(range(200 - missing)), "the oldest stay, in order"
    await engine.dispose()


async def _dropped(file: Path) -> int:
    return sum(event["dropped"] for event in await _events(file, "audit.recovered"))


STDOUT_BLOCKED = """
import asyncio, sys
from pathlib import Path
from bastion.audit import log as log_module
from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.config import Database
from tests.audit.sections import audit

async def main(folder):
    log_module.CLOSE_LIMIT = 0.5
    config = Database(url=f"sqlite+aiosqlite:///{folder}/b.db")
    await upgrade(config)
    engine = create_engine(config)
    config = audit(Path(folder, "audit.jsonl"), stdout=True)
    async with log_module.AuditLog(config, "b1", engine, Path(folder)) as log:
        for number in range(300):
            await log.emit(Event.CONFIG_RELOADED, number=number, padding="x" * 2000)
    await engine.dispose()

asyncio.run(main(sys.argv[1]))
"""


def test_a_pager_that_takes_nothing_holds_nothing_up(tmp_path: Path) -> None:
    """Standard output is a pipe that nobody reads: the file goes on, and the process can end."""
    process = subprocess.Popen(
        [sys.executable, "-c", STDOUT_BLOCKED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.wait(30)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert numbers(lines(tmp_path / "audit.jsonl")) == list(range(300))
    assert b"audit.stdout" in errors


KILLED = """
import asyncio, sys
from pathlib import Path
from bastion.audit.database import create_engine
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.config import Database
from tests.audit.sections import audit

async def main(folder):
    engine = create_engine(Database(url=f"sqlite+aiosqlite:///{folder}/b.db"))
    async with AuditLog(audit(Path(folder, "audit.jsonl")), "b1", engine, Path(folder)) as log:
        for number in range(10**9):
            await log.emit(Event.CONFIG_RELOADED, number=number)
            print(number, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_what_emit_returned_for_is_there_after_kill_9(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=out, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: output.read_text().count("\n") > 100, "events are emitted")
    finally:
        process.kill()
        process.wait(10)
    returned = int(output.read_text().rpartition("\n")[0].rpartition("\n")[2])
    written = (tmp_path / "audit.jsonl").read_text().rpartition("\n")[0].splitlines()
    assert json.loads(written[-1])["number"] >= returned
