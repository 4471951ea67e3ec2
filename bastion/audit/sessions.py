"""The rows of `sessions`: one is there before a session begins; the event of its end closes it (sinks.py)."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import Executable, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import describe, reading, unavailable
from bastion.audit.tables import ACTIVE, LOST, REFUSED, sessions
from bastion.audit.writer import Writer
from bastion.model import Container

BEGIN_LIMIT = 5.0  # seconds until a session is refused because the database does not answer
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
    """Begins rows. `async with` owns the task that writes them, in order.

    `bastion_id` tells the bastions apart that share a database; it has to stay the same over a restart. Where it is not
    `strict`, a session begins also while the database is away: its row then comes with its session.start (sinks.py).
    """

    def __init__(self, database: AsyncEngine, bastion_id: str, strict: bool = True) -> None:
        self._database = database
        self._bastion_id = bastion_id
        self._strict = strict

    async def __aenter__(self) -> Self:
        self._writer: Writer[Executable] = Writer(
            "database sessions", self._execute, capacity=CAPACITY, attempt=ATTEMPT_LIMIT, changed=self._changed
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if lost := await self._writer.close(CLOSE_LIMIT):
            _logger.error(
                "database: %d sessions could not be marked as refused; the next start marks them as lost", lost
            )

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
        """Add the row of a session that is about to begin. Unavailable (AUDIT_UNAVAILABLE) when that fails; strict."""
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
            self._refuse(session_id)
            raise
        if error is not None and not self._strict:
            _logger.warning("session %s begins without its row: %s", session_id, describe(error))
        elif error is not None:
            self._refuse(session_id)  # the database may have it all the same
            raise unavailable(self._database, error)

    def _refuse(self, session_id: str) -> None:
        """It did not begin; while the database is away, a task goes on trying to say so."""
        now = datetime.now(UTC)
        begun = sessions.c.session_id == session_id, sessions.c.status.in_((ACTIVE, LOST))
        refused = update(sessions).where(*begun).values(status=REFUSED, ended_at=now, updated_at=now)
        self._writer.put(refused, keep=True)

    async def close_lost(self) -> Sequence[SessionRow]:
        """Mark what a crash of this bastion left active as lost, and return it. To be called before any begin()."""
        now = datetime.now(UTC)
        lost = (
            update(sessions)
            .where(sessions.c.bastion_id == self._bastion_id, sessions.c.status == ACTIVE)
            .values(status=LOST, ended_at=now, updated_at=now)
            .returning(*sessions.columns)
        )
        try:
            async with asyncio.timeout(ATTEMPT_LIMIT), self._database.begin() as connection:
                return [SessionRow(**row) for row in (await connection.execute(lost)).mappings()]
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(self._database, error) from None

    async def over(self, session_ids: Sequence[str]) -> Sequence[str]:
        """Which of these sessions of this bastion have ended. Unavailable where the database does not answer."""
        asked = select(sessions.c.session_id).where(
            sessions.c.session_id.in_(session_ids),
            sessions.c.bastion_id == self._bastion_id,
            sessions.c.status != ACTIVE,
        )
        async with reading(self._database) as connection:
            return list(await connection.scalars(asked))

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
