import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit import tail as tail_module
from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Entry, Event, entry
from bastion.audit.search import Filters
from bastion.audit.sessions import SessionRows
from bastion.audit.sinks import EventTable
from bastion.audit.tail import Tail
from bastion.config import Database
from tests.audit.test_sessions import begin, container
from tests.servers.postgres import Postgres


def made(number: int, event: Event = Event.CONFIG_RELOADED, **fields: Any) -> Entry:
    return entry(event, "b", dict.fromkeys(event.required, "x") | {"number": number} | fields)


def number(line: str) -> int:
    return int(json.loads(line)["number"])


class Reader:
    """Follows in a task of its own; `seen` are the numbers of what came."""

    def __init__(self, tail: Tail) -> None:
        self.seen: list[int] = []
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._read(tail))

    async def _read(self, tail: Tail) -> None:
        async with contextlib.aclosing(tail.follow()) as lines:
            async for line in lines:
                self.seen.append(number(line))
                self._came.set()

    async def until(self, count: int) -> list[int]:
        async with asyncio.timeout(60):
            while len(self.seen) < count:
                await self._came.wait()
                self._came.clear()
        return self.seen

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def reading(tail: Tail) -> AsyncIterator[Reader]:
    reader = Reader(tail)
    try:
        yield reader
    finally:
        await reader.close()


async def test_the_last_and_then_those_that_come(database: AsyncEngine) -> None:
    table, tail = EventTable(database), Tail(database, Filters())
    await table.write([made(n) for n in range(5)])
    assert [number(line) for line in await tail.last(3)] == [2, 3, 4]
    await table.write([made(5)])
    async with reading(tail) as reader:
        assert await reader.until(1) == [5]
        await table.write([made(n) for n in range(6, 1300)])
        await table.write([made(1300)])
        assert await reader.until(1296) == list(range(5, 1301))


async def test_an_empty_table(database: AsyncEngine) -> None:
    tail = Tail(database, Filters())
    assert list(await tail.last(10)) == []
    async with reading(tail) as reader:
        await EventTable(database).write([made(1)])
        assert await reader.until(1) == [1]


async def test_filters(database: AsyncEngine) -> None:
    async with SessionRows(database, "b1") as rows:
        await begin(rows, "s1", container=container("web"))
        await begin(rows, "s2", container=container("shop"))
    await EventTable(database).write(
        [
            made(0, Event.SESSION_START, session_id="s1", user="alice"),
            made(1, Event.SESSION_END, session_id="s2", user="alice", status="ended"),
            made(2, Event.USER_LOGIN, user="bob"),
            made(3, Event.SESSION_KILLED, session_id="s1", user="alice"),
            made(4, Event.ACCESS_DENIED, session_id="s9", user="bob", address="web.x.1"),
        ]
    )

    async def found(filters: Filters, *names: str) -> list[int]:
        return [number(line) for line in await Tail(database, filters, names).last(10)]

    assert await found(Filters()) == [0, 1, 2, 3, 4]
    assert await found(Filters(user="bob")) == [2, 4]
    assert await found(Filters(), "session.*") == [0, 1, 3]
    assert await found(Filters(), "user.login", "session.end") == [1, 2]
    assert await found(Filters(), "session") == []
    assert await found(Filters(app="web")) == [0, 3]
    assert await found(Filters(apps={"shop"})) == [1]
    assert await found(Filters(app="web", apps={"shop"})) == []
    assert await found(Filters(session="s")) == [0, 1, 3, 4]


async def test_what_does_not_fit_is_passed_over(database: AsyncEngine) -> None:
    table, tail = EventTable(database), Tail(database, Filters(user="alice"))
    await tail.last(0)
    async with reading(tail) as reader:
        await table.write([made(n, user="alice" if n % 1000 == 999 else "bob") for n in range(3000)])
        assert await reader.until(3) == [999, 1999, 2999]


async def test_many_bastions_commit_in_any_order(postgres: Postgres) -> None:
    """Each gets its positions before it commits: with a smaller one behind a greater one, it would be missed."""
    config = Database(url=SecretStr(postgres.url(postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    tail = Tail(engine, Filters())
    await tail.last(0)

    async def bastion(first: int) -> None:
        own = create_engine(config)
        table = EventTable(own)
        for start in range(first, first + 200, 5):
            async with own.begin() as connection:  # as EventTable does, with a pause before the commit
                await connection.execute(text("SELECT 1"))
                await connection.execute(
                    text(
                        "INSERT INTO events (id, time, event, bastion_id, entry) VALUES (:id, now(), 'x', 'b', :entry)"
                    ),
                    [{"id": f"i{n}", "entry": made(n).line} for n in range(start, start + 5)],
                )
                await asyncio.sleep(random.uniform(0, 0.005))
        await table.write([made(first + 200)])
        await own.dispose()

    async with reading(tail) as reader:
        await asyncio.gather(*(bastion(1000 * n) for n in range(5)))
        seen = await reader.until(5 * 201)
    assert sorted(seen) == sorted(n for first in range(0, 5000, 1000) for n in range(first, first + 201))
    await engine.dispose()


async def test_a_bastion_that_hangs_in_its_transaction_is_cut_off(postgres: Postgres) -> None:
    """Else it would hold up all others for ever."""
    config = Database(url=SecretStr(postgres.url(postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    stuck = create_engine(config)
    connection = await stuck.connect()
    await connection.execute(
        text("INSERT INTO events (id, time, event, bastion_id, entry) VALUES ('1', now(), 'x', 'b', '{}')")
    )
    async with asyncio.timeout(30):
        await EventTable(engine).write([made(2)])
    assert [number(line) for line in await Tail(engine, Filters()).last(5)] == [2]
    await connection.invalidate()
    await connection.close()
    await stuck.dispose()
    await engine.dispose()


async def test_nothing_is_missed_or_doubled_over_outages(
    own_postgres: Postgres, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "BACKOFF", (0.05, 0.2))
    config = Database(url=SecretStr(own_postgres.url(own_postgres.create_database())))
    await upgrade(config)
    engine, other = create_engine(config), create_engine(config)
    table, tail = EventTable(other), Tail(engine, Filters())
    await tail.last(0)

    async def write(*numbers: int) -> None:
        """As a bastion: in order, each until it is there."""
        for n in numbers:
            one, there = made(n), False
            while not there:
                with contextlib.suppress(Exception):  # away
                    async with asyncio.timeout(5):
                        there = await table.write([one]) == 1
                await asyncio.sleep(0.005)

    async with reading(tail) as reader:
        for first in range(0, 300, 100):
            writing = asyncio.gather(*(write(*range(n, n + 25)) for n in range(first, first + 100, 25)))
            await asyncio.sleep(random.uniform(0, 0.1))
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(own_postgres.start)
            await writing
        assert sorted(await reader.until(300)) == list(range(300))
        # a connection that the server ends while it waits for a notification
        with own_postgres.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND application_name = 'bastion'"
            )
        await write(300)
        assert (await reader.until(301))[-1] == 300
    assert "nothing is missing" in caplog.text
    await engine.dispose()
    await other.dispose()


async def test_postgresql_tells(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the look every few seconds finds it."""
    monkeypatch.setattr(tail_module, "NOTIFY_LIMIT", 100.0)
    config = Database(url=SecretStr(postgres.url(postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    tail = Tail(engine, Filters())
    await tail.last(0)
    async with reading(tail) as reader:
        for n in range(20):
            await EventTable(engine).write([made(n)])
            assert await reader.until(n + 1) == list(range(n + 1))
            await asyncio.sleep(0.01 * (n % 3))
    await engine.dispose()
