"""Second factors in the database: whose secret is which, and which codes were used. Inserted, and never changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bastion.audit.database import describe
from bastion.audit.tables import enrolments, used_codes
from bastion.errors import Reason, Unavailable

SECONDS = 5


class Enrolments:
    """What `bastion.auth.totp.Enrolments` asks for. Every method raises Unavailable."""

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def newest(self, user: str) -> tuple[int, bytes] | None:
        """The enrolment of `user` that counts, and its encrypted secret; None for none, or one that was taken away."""
        columns = select(enrolments.c.position, enrolments.c.secret)
        newest = columns.where(enrolments.c.user == user).order_by(enrolments.c.position.desc()).limit(1)
        async with self._connection() as connection:
            row = (await connection.execute(newest)).one_or_none()
        return None if row is None or row.secret is None else (row.position, row.secret)

    async def enrol(self, user: str, secret: bytes | None) -> None:
        """None takes it away."""
        async with self._connection() as connection:
            values = {"user": user, "secret": secret, "created_at": datetime.now(UTC)}
            await connection.execute(insert(enrolments).values(values))

    async def use(self, enrolment: int, step: int) -> bool:
        """Use the code of this time step; False where it was used before, here or at another bastion."""
        try:
            async with self._connection() as connection:
                values = {"enrolment": enrolment, "step": step, "used_at": datetime.now(UTC)}
                await connection.execute(insert(used_codes).values(values))
        except IntegrityError:
            return False
        return True

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(SECONDS), self._database.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            text = "sign-in is unavailable, try again"
            raise Unavailable(Reason.AUTH_UNAVAILABLE, text, f"second factors: {describe(error)}") from None
