"""The database: how to reach it, what may go wrong with it in words for people, and its migrations."""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite
from sqlalchemy import Connection, Engine, Insert, Table, event, text
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bastion.audit.tables import UPDATABLE, metadata
from bastion.config import Database
from bastion.errors import BastionError, ConfigError, Reason, Unavailable, printable

SQLITE, POSTGRESQL = "sqlite+aiosqlite", "postgresql+psycopg"
SQLITE_WAIT = 5  # seconds for another process's write
READ_LIMIT = 60.0  # seconds that a search may take
UPGRADE_WAIT = 60  # seconds for another bastion's upgrade
POSTGRESQL_OPTIONS = {  # libpq's, where the URL does not say otherwise
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 10_000,  # milliseconds until a host that vanished counts as gone
    "application_name": "bastion",
}
_LOCK = 0x62617374696F6E  # "bastion", of pg_advisory_xact_lock


def create_engine(config: Database) -> AsyncEngine:
    """The engine that `database.url` names. It connects when it is first used. ConfigError."""
    url = _url(config)
    if url.drivername == POSTGRESQL:
        return create_async_engine(url, connect_args=_options(url), pool_pre_ping=True, hide_parameters=True)
    engine = create_async_engine(url, async_creator=partial(_connect_sqlite, str(url.database)), hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def insert_new(engine: AsyncEngine, table: Table, key: str) -> Insert:
    """An insert of rows, of which those that are there already are left alone: it may be repeated."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=[key])
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])


@contextlib.asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for a question. Unavailable (AUDIT_UNAVAILABLE) where the database does not answer it in time.

    BastionError where it says that the question itself is wrong.
    """
    try:
        async with asyncio.timeout(READ_LIMIT), engine.connect() as connection:
            yield connection
    except DataError as error:
        raise BastionError(describe(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise unavailable(engine, error) from None


def unavailable(engine: AsyncEngine, error: BaseException) -> Unavailable:
    """The refusal of what needs the database."""
    return Unavailable(
        Reason.AUDIT_UNAVAILABLE,
        "The bastion's database does not answer, so no session can begin. Please try again in a while.",
        f"database {place(engine.url)}: {describe(error)}",
    )


async def upgrade(config: Database, option: str = "database.url") -> None:
    """Bring the tables to this version's; nothing is done where they are. Bastions may start at once.

    Raises ConfigError that names `option`, where the URL is from.
    """
    await asyncio.to_thread(_upgrade, _url(config), option)


def grants(role: str) -> str:
    """The SQL that gives a PostgreSQL role what the bastion needs at run time, and takes what is more."""
    return "\n".join(f"{statement};" for statement in ("BEGIN", *grant_statements(role), "COMMIT"))


def grant_statements(role: str) -> list[str]:
    name, tables = quoted(role), ", ".join(metadata.tables)
    return [
        f"REVOKE ALL ON {tables}, alembic_version FROM {name}",
        f"GRANT SELECT ON alembic_version TO {name}",
        f"GRANT SELECT, INSERT ON {tables} TO {name}",
        *(f"GRANT UPDATE ({', '.join(columns)}) ON {table} TO {name}" for table, columns in UPDATABLE.items()),
    ]


def quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'


def place(url: URL) -> str:
    """The database without the user's password or anything else that may be secret."""
    if url.drivername == SQLITE:
        return str(url.database)
    host = url.host or url.query.get("host") or "the local socket"
    return f"{url.username or 'postgres'} at {host}:{url.port or url.query.get('port') or 5432}/{url.database}"


def describe(error: BaseException) -> str:
    """What the database or the file system says, on one printable line; never the statement or a password."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return printable(" ".join(str(error).split()))


def _url(config: Database) -> URL:
    url = make_url(config.url.get_secret_value())
    if url.drivername == SQLITE and url.database in (None, "", ":memory:"):
        raise ConfigError([f"database.url: a database in memory forgets; {SQLITE}:///FILE is right"])
    return url


def _options(url: URL) -> dict[str, Any]:
    return {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query}


async def _connect_sqlite(file: str) -> aiosqlite.Connection:
    # mode=rw: a file that is not there is an error, and not made (upgrade() makes it)
    uri = f"file:{quote(file)}?mode=rw"
    connection = aiosqlite.connect(uri, uri=True, timeout=SQLITE_WAIT, check_same_thread=False)
    connection._thread.daemon = True  # as SQLAlchemy does where it makes the connection: none holds up the exit
    try:
        return await connection
    except BaseException:
        # It still has to tell this event loop that it ends, and fails with a traceback where that is closed by then.
        await asyncio.to_thread(connection._thread.join)
        raise


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _upgrade(url: URL, option: str) -> None:
    from alembic import command  # noqa: PLC0415 - alembic is slow to load, and needed only here
    from alembic.config import Config as AlembicConfig  # noqa: PLC0415 - the same
    from alembic.util import CommandError  # noqa: PLC0415 - the same

    engine = None
    try:
        engine = _migration_engine(url)
        with engine.begin() as connection:
            _lock(connection)
            config = AlembicConfig()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, OSError) as error:
        raise ConfigError([f"{option}: {place(url)}: {describe(error)}{_hint(error)}"]) from None
    except CommandError as error:
        newer = "its tables are of a newer version of bastion; install that one"
        raise ConfigError([f"{option}: {place(url)}: {newer} ({describe(error)})"]) from None
    finally:
        if engine is not None:
            engine.dispose()


def _migration_engine(url: URL) -> Engine:
    """A plain engine whose transactions begin with a lock, so that all of an upgrade happens, once, or nothing."""
    if url.drivername == POSTGRESQL:
        return create_sync_engine(url, connect_args=_options(url), hide_parameters=True)
    assert url.database is not None
    if not Path(url.database).exists():
        _make_sqlite(Path(url.database))
    os.close(os.open(url.database, os.O_RDWR | os.O_CLOEXEC))  # says why where it can not be
    engine = create_sync_engine(
        url.set(drivername="sqlite"), connect_args={"timeout": UPGRADE_WAIT}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        _prepare_sqlite(connection, record)
        connection.isolation_level = None  # the driver's own BEGIN would come too late

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _make_sqlite(path: Path) -> None:
    """An empty database that others find whole, and nobody else may read. OSError.

    SQLite itself would make it readable by everybody, and fails at once where two change it to a write-ahead log.
    """
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
        made = Path(folder, path.name)
        made.touch(0o600)
        with contextlib.closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with contextlib.suppress(FileExistsError):  # another bastion was sooner
            os.link(made, path)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{UPGRADE_WAIT}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _hint(error: Exception) -> str:
    if getattr(getattr(error, "orig", None), "sqlstate", None) == "42501":  # insufficient_privilege
        return "; `bastion db upgrade` has to be run with the role that owns the tables"
    return ""
