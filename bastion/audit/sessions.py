"""The rows of `sessions`: one is there before a session begins, and says so when it is over."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Executable, RowMapping, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import describe, place
from bastion.audit.tables import ACTIVE, LOST, sessions
from bastion.audit.writer import Writer
from bastion.errors import BastionError, Reason, Unavailable, printable
from bastion.model import Container

BEGIN_LIMIT = 5.0  # seconds until a session is refused because the database does not answer
END_LIMIT = 1.0  # seconds that the end of a session waits for the database, before it is left to the background
ATTEMPT_LIMIT = 5.0  # seconds that one transaction may take
CLOSE_LIMIT = 5.0  # seconds for what is left at the end
CAPACITY = 10_000  # rows that wait
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A row of `sessions`; times are in UTC."""

    session_id: str
    connection_id: str
    bastion_id: str
    user: str
    source_ip: str
    app_name: str
    proc_name: str | None
    instance_no: int | None
    engine: str
    container_id: str
    node_ip: str | None
    terminal: bool
    command: str | None
    status: str
    created_at: datetime
    ended_at: datetime | None
    updated_at: datetime


class SessionRows:
    """Begins, ends and lists rows. `async with` owns the task that writes them, in order.

    `bastion_id` tells the bastions apart that share a database; it has to stay the same over a restart.
    """

    def __init__(self, database: AsyncEngine, bastion_id: str) -> None:
        self._database = database
        self._bastion_id = bastion_id

    async def __aenter__(self) -> Self:
        self._writer: Writer[Executable] = Writer(
            "database sessions", self._execute, capacity=CAPACITY, attempt=ATTEMPT_LIMIT, changed=self._changed
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if lost := await self._writer.close(CLOSE_LIMIT):
            _logger.error("database: %d sessions could not be marked as ended; the next start will", lost)

    async def begin(
        self,
        *,
        session_id: str,
        connection_id: str,
        user: str,
        source_ip: str,
        container: Container,
        terminal: bool,
        command: str | None,
        node_ip: str | None = None,
    ) -> None:
        """Add the row of a session that is about to begin. Unavailable (AUDIT_UNAVAILABLE) when that fails."""
        now = datetime.now(UTC)
        row = {
            "session_id": session_id,
            "connection_id": connection_id,
            "bastion_id": self._bastion_id,
            "user": user,
            "source_ip": source_ip,
            "app_name": container.address.app,
            "proc_name": container.address.proc,
            "instance_no": container.address.instance,
            "engine": container.engine,
            "container_id": container.id,
            "node_ip": node_ip,
            "terminal": terminal,
            "command": command,
            "status": ACTIVE,
            "created_at": now,
            "updated_at": now,
        }
        done = self._writer.put(sessions.insert().values(row), keep=False)
        try:
            async with asyncio.timeout(BEGIN_LIMIT):
                error = await done
        except TimeoutError as late:
            error = self._writer.error or late
        except asyncio.CancelledError:
            self._end(session_id, "refused")
            raise
        if error is not None:
            self._end(session_id, "refused")  # the database may have it all the same
            raise self._unavailable(error)

    async def end(self, session_id: str, status: str) -> None:
        """Note the end of a session. Raises nothing: while the database is away, a task goes on trying."""
        await asyncio.wait({self._end(session_id, status)}, timeout=END_LIMIT)

    def _end(self, session_id: str, status: str) -> "asyncio.Future[Exception | None]":
        now = datetime.now(UTC)
        # LOST: another process of this bastion started meanwhile and took it for dead
        over = sessions.c.session_id == session_id, sessions.c.status.in_((ACTIVE, LOST))
        return self._writer.put(
            update(sessions).where(*over).values(status=status, ended_at=now, updated_at=now), keep=True
        )

    async def close_lost(self) -> Sequence[SessionRow]:
        """Mark what a crash of this bastion left active as lost, and return it. To be called before any begin()."""
        now = datetime.now(UTC)
        lost = (
            update(sessions)
            .where(sessions.c.bastion_id == self._bastion_id, sessions.c.status == ACTIVE)
            .values(status=LOST, ended_at=now, updated_at=now)
            .returning(*sessions.columns)
        )
        return await self._rows(lost)

    async def list(
        self,
        *,
        user: str | None = None,
        app: str | None = None,
        apps: Collection[str] | None = None,
        active: bool = False,
        limit: int = 50,
    ) -> Sequence[SessionRow]:
        """The latest sessions, newest first; `apps` are those that may be seen. Unavailable without a database."""
        query = select(sessions).order_by(sessions.c.created_at.desc(), sessions.c.session_id).limit(limit)
        if user is not None:
            query = query.where(sessions.c.user == user)
        if app is not None:
            query = query.where(sessions.c.app_name == app)
        if apps is not None:
            query = query.where(sessions.c.app_name.in_(apps))
        if active:
            query = query.where(sessions.c.status == ACTIVE)
        return await self._rows(query)

    async def find(self, start: str) -> SessionRow:
        """The one whose id begins so. BastionError where none does, or several do; Unavailable."""
        query = select(sessions).where(sessions.c.session_id.startswith(start, autoescape=True)).limit(2)
        found = await self._rows(query)
        if len(found) != 1:
            shown = printable(start)
            raise BastionError(f"{'several sessions begin' if found else 'no session begins'} with {shown}")
        return found[0]

    async def _rows(self, statement: Executable) -> Sequence[SessionRow]:
        try:
            async with asyncio.timeout(ATTEMPT_LIMIT), self._database.begin() as connection:
                return [_row(row) for row in (await connection.execute(statement)).mappings()]
        except (SQLAlchemyError, OSError) as error:
            raise self._unavailable(error) from None

    async def _execute(self, batch: Sequence[Executable]) -> int:
        async with self._database.begin() as connection:
            for statement in batch:
                await connection.execute(statement)
        return len(batch)

    def _changed(self, _writer: Writer[Executable], error: Exception | None) -> None:
        if error is not None:
            _logger.error("database: sessions can not be written: %s", describe(error))
        else:
            _logger.warning("database: sessions are written again")

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            Reason.AUDIT_UNAVAILABLE,
            "The bastion's database does not answer, so no session can begin. Please try again in a while.",
            f"database {place(self._database.url)}: {describe(error)}",
        )


def _row(row: RowMapping) -> SessionRow:
    values: dict[str, Any] = dict(row)
    return SessionRow(**values)
