"""Events as they happen, from the table: on one bastion, or on many that share a database.

Positions become visible in their order: SQLite has one writer, and on PostgreSQL writers wait for each other
(migrations/versions/0003). So whoever has read up to one has missed nothing, and goes on from there over any outage.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bastion.audit.database import describe, place, reading
from bastion.audit.search import Filters
from bastion.audit.tables import events, sessions

BATCH = 500  # events a query
LOOK = 0.03  # seconds between two looks at SQLite
NOTIFY_LIMIT = 5.0  # seconds after which PostgreSQL is asked, even if it has not told: something between may swallow it
READ_LIMIT = 10.0  # seconds for one query
BACKOFF = 0.1, 2.0  # seconds between tries to reach a database that is away, first and longest
_logger = logging.getLogger(__name__)

Wait = Callable[[], Awaitable[None]]


class Tail:
    """The lines (JSON, as in the file) of the events that fit `filters` and one of `names`, in the order of the table.

    A name is that of an event, or `session.*`; none: all.
    """

    def __init__(self, database: AsyncEngine, filters: Filters, names: Sequence[str] = ()) -> None:
        self._database = database
        self._wanted = _wanted(filters, names)
        self._position = 0  # all up to here was given

    async def last(self, count: int) -> Sequence[str]:
        """The last that are there now. Unavailable where the database does not answer."""
        async with reading(self._database) as connection:
            self._position = await _highest(connection)
            query = select(events.c.entry).where(events.c.position <= self._position, *self._wanted)
            found = await connection.execute(query.order_by(events.c.position.desc()).limit(count))
            return list(reversed(found.scalars().all()))

    async def follow(self) -> AsyncGenerator[str, None]:
        """All that come after last(), each once, without end. What is wrong with the database meanwhile is logged."""
        delay, away = BACKOFF[0], False
        while True:
            try:
                async with _waiting(self._database) as wait:
                    while True:
                        # only now is it given: giving back a connection that was lost fails as well
                        lines, self._position = await self._next(self._position)
                        if away:
                            _logger.warning("%s answers again; nothing is missing", place(self._database.url))
                        delay, away = BACKOFF[0], False
                        for line in lines:
                            yield line
                        if not lines:
                            await wait()
            except (SQLAlchemyError, psycopg.Error, OSError) as error:
                if not away:
                    _logger.warning("%s: %s; what comes follows", place(self._database.url), describe(error))
                away = True
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF[1])

    async def _next(self, position: int) -> tuple[Sequence[str], int]:
        """Some of those that come next, and up to where they are all; none where there are none yet."""
        async with asyncio.timeout(READ_LIMIT), self._database.connect() as connection:
            while (highest := await _highest(connection)) > position:
                query = select(events.c.position, events.c.entry).order_by(events.c.position).limit(BATCH)
                query = query.where(events.c.position > position, events.c.position <= highest, *self._wanted)
                found = (await connection.execute(query)).all()
                position = found[-1].position if len(found) == BATCH else highest
                if found:
                    return [row.entry for row in found], position
        return [], position


def _wanted(filters: Filters, names: Sequence[str]) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if names:
        wanted.append(or_(*(_named(name) for name in names)))
    if filters.user is not None:
        wanted.append(events.c.user == filters.user)
    if filters.session is not None:
        wanted.append(events.c.session_id.startswith(filters.session, autoescape=True))
    if filters.since is not None:
        wanted.append(events.c.time >= filters.since)
    if filters.until is not None:
        wanted.append(events.c.time < filters.until)
    if filters.app is not None:
        wanted.append(_of_apps([filters.app]))
    if filters.apps is not None:
        wanted.append(_of_apps(filters.apps))
    return wanted


def _named(name: str) -> ColumnElement[bool]:
    if name.endswith("*"):
        return events.c.event.startswith(name[:-1], autoescape=True)
    return events.c.event == name


def _of_apps(apps: Any) -> ColumnElement[bool]:
    """Only of their sessions: what was asked for in vain is nobody's but the auditors'."""
    return events.c.session_id.in_(select(sessions.c.session_id).where(sessions.c.app_name.in_(apps)))


async def _highest(connection: AsyncConnection) -> int:
    return (await connection.execute(select(func.max(events.c.position)))).scalar() or 0


@contextlib.asynccontextmanager
async def _waiting(database: AsyncEngine) -> AsyncIterator[Wait]:
    """Returns when there may be something new since the block was entered, or since it returned before."""
    if database.dialect.name != "postgresql":
        yield lambda: asyncio.sleep(LOOK)
        return
    async with database.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        await driver.execute("LISTEN bastion_events")

        async def told() -> None:
            async for _ in driver.notifies(timeout=NOTIFY_LIMIT, stop_after=1):
                pass

        try:
            yield told
        finally:
            await connection.invalidate()  # nobody gets a connection from the pool that listens
