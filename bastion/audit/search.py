"""What is asked of the tables: sessions, commands and events, each with filters, the latest first."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, column, or_, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import Join

from bastion.audit.database import reading
from bastion.audit.sessions import SessionRow
from bastion.audit.tables import ACTIVE, SafeText, commands, sessions
from bastion.errors import BastionError, printable

TRIGRAM = 3  # characters; what is shorter is in no index


@dataclass(frozen=True, slots=True)
class Filters:
    """What is wanted, and `apps`, those that may be seen (None: all)."""

    user: str | None = None
    app: str | None = None
    session: str | None = None  # its id, or the beginning of it
    since: datetime | None = None
    until: datetime | None = None
    apps: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A row of `commands`; times are in UTC, `at` is in seconds into the recording."""

    command_id: str
    session_id: str
    user: str
    app_name: str
    address: str
    content: str
    confidence: str
    prompt: str
    at: float
    degraded: bool
    created_at: datetime


class Search:
    """Reads through `database`. Every method raises Unavailable when that does not answer."""

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def sessions(
        self, filters: Filters, *, active: bool = False, before: str | None = None, limit: int = 50
    ) -> Sequence[SessionRow]:
        """The latest; `before` is the id of the last session of the page before. BastionError where there is none."""
        query = select(sessions).order_by(sessions.c.created_at.desc(), sessions.c.session_id.desc()).limit(limit)
        query = query.where(*_wanted(sessions, filters))
        if active:
            query = query.where(sessions.c.status == ACTIVE)
        async with reading(self._database) as connection:
            if before is not None:
                row = await _one(connection, select(sessions).where(sessions.c.session_id == before), before)
                query = query.where(
                    or_(
                        sessions.c.created_at < row["created_at"],
                        and_(sessions.c.created_at == row["created_at"], sessions.c.session_id < before),
                    )
                )
            return [SessionRow(**row) for row in (await connection.execute(query)).mappings()]

    async def session(self, start: str, apps: Collection[str] | None = None) -> SessionRow:
        """The one whose id begins so. BastionError where none does that may be seen, or several do."""
        query = select(sessions).where(*_wanted(sessions, Filters(session=start, apps=apps))).limit(2)
        async with reading(self._database) as connection:
            found = (await connection.execute(query)).mappings().all()
        if len(found) != 1:
            shown = printable(start)
            raise BastionError(f"{'several sessions begin' if found else 'no session begins'} with {shown}")
        return SessionRow(**found[0])

    async def commands(
        self,
        filters: Filters,
        *,
        like: str | None = None,
        regex: str | None = None,
        confidence: Collection[str] = (),
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[CommandRow]:
        """The latest. `like` is a part of the line, whatever its case; `regex` is one of the database's own kind:

        PostgreSQL's, or Python's on SQLite. `before` is the id of the last command of the page before.
        """
        columns = [commands.c[name] for name in CommandRow.__dataclass_fields__]
        query = select(*columns).order_by(commands.c.position.desc()).limit(limit).where(*_wanted(commands, filters))
        if confidence:
            query = query.where(commands.c.confidence.in_(confidence))
        async with reading(self._database) as connection:
            query = _matching(connection.dialect.name, query, like, regex)
            if before is not None:
                row = await _one(connection, select(commands).where(commands.c.command_id == before), before)
                query = query.where(commands.c.position < row["position"])
            return [CommandRow(**row) for row in (await connection.execute(query)).mappings()]


def _wanted(kind: Table, filters: Filters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if filters.user is not None:
        wanted.append(kind.c.user == filters.user)
    if filters.app is not None:
        wanted.append(kind.c.app_name == filters.app)
    if filters.session is not None:
        wanted.append(kind.c.session_id.startswith(filters.session, autoescape=True))
    if filters.since is not None:
        wanted.append(kind.c.created_at >= filters.since)
    if filters.until is not None:
        wanted.append(kind.c.created_at < filters.until)
    if filters.apps is not None:
        wanted.append(kind.c.app_name.in_(filters.apps))
    return wanted


def _matching(dialect: str, query: Select[Any], like: str | None, regex: str | None) -> Select[Any]:
    """With what the lines have to contain. BastionError where `regex` is none."""
    if regex is not None:
        try:
            re.compile(regex if dialect == "sqlite" else "")
        except re.error as error:
            raise BastionError(f"--regex: {printable(str(error))}") from None
        query = query.where(commands.c.content.regexp_match(regex))
    if like is None:
        return query
    if dialect != "sqlite" or len(like) < TRIGRAM:
        return query.where(commands.c.content.icontains(like, autoescape=True))
    phrase = bindparam("phrase", '"' + like.replace('"', '""') + '"', type_=SafeText())
    return (
        query.select_from(_CrossJoin(_FOUND, commands, commands.c.position == _FOUND.c.rowid))
        .where(text("commands_text MATCH :phrase").bindparams(phrase))
        .order_by(None)
        .order_by(_FOUND.c.rowid.desc())
    )


_FOUND = table("commands_text", column("rowid"))


class _CrossJoin(Join):
    """SQLite's: first what the index of the text finds, in its order, and never the other way round."""

    inherit_cache = True


@compiles(_CrossJoin)
def _cross_join(join: _CrossJoin, compiler: SQLCompiler, **options: Any) -> str:
    joined: str = compiler.visit_join(join, **options)  # type: ignore[no-untyped-call] # it has no types
    return joined.replace(" JOIN ", " CROSS JOIN ", 1)


async def _one(connection: AsyncConnection, query: Select[Any], name: str) -> Any:
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise BastionError(f"--before {printable(name)}: there is none of this id")
    return row
