"""The two roles of PostgreSQL: the one that owns the tables, and the bastion's, which may do the least with them."""

import contextlib
from collections.abc import Iterator

from psycopg import Connection as Driver
from sqlalchemy import Connection, text
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from bastion.audit.database import POSTGRESQL_OPTIONS, describe, grant_statements, place, quoted
from bastion.audit.tables import UPDATABLE, metadata
from bastion.errors import BastionError

_VERSION = "alembic_version"
_ALLOWED = {(table, "INSERT") for table in metadata.tables} | {
    (table, f"UPDATE ({column})") for table, columns in UPDATABLE.items() for column in columns
}
# Who is a member of the owner may become it (SET ROLE), whatever is inherited.
_OWNED = """
SELECT c.relname FROM pg_class c
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)
  AND (pg_has_role(:role, c.relowner, 'MEMBER')
       OR pg_has_role(:role, (SELECT nspowner FROM pg_namespace WHERE oid = c.relnamespace), 'MEMBER'))
ORDER BY c.relname
"""
_RIGHTS = """
SELECT name, what FROM unnest(CAST(:tables AS text[])) AS name,
  unnest(ARRAY['INSERT', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS what
WHERE has_table_privilege(:role, to_regclass(name), what)
UNION ALL
SELECT name, 'UPDATE (' || attname || ')' FROM unnest(CAST(:tables AS text[])) AS name
  JOIN pg_attribute ON attrelid = to_regclass(name)
WHERE attnum > 0 AND NOT attisdropped AND has_column_privilege(:role, attrelid, attnum, 'UPDATE')
ORDER BY 1, 2
"""


@contextlib.contextmanager
def as_owner(url: URL) -> Iterator[Connection]:
    """A transaction of the owner's role. Raises BastionError with what the database says."""
    options = {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query}
    engine = create_sync_engine(url, connect_args=options, hide_parameters=True)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise BastionError(f"--owner-url: {place(url)}: {describe(error)}") from None
    finally:
        engine.dispose()


def exists(connection: Connection, role: str) -> bool:
    return connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar() is not None


def create(connection: Connection, role: str, password: str) -> None:
    """A role that can log in, and no more; the server, and so its log, gets the password only as a hash."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, Driver)
    hashed = driver.pgconn.encrypt_password(password.encode(), role.encode()).decode()
    _execute(connection, f"CREATE ROLE {quoted(role)} LOGIN PASSWORD '{hashed}'")


def grant(connection: Connection, role: str) -> None:
    """What serving needs, and nothing of what the role was given before."""
    for statement in grant_statements(role):
        _execute(connection, statement)


def excess(connection: Connection, role: str) -> list[str]:
    """What the role may do with the tables beyond what serving needs, in words."""
    if connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar():
        return ["it is a superuser"]
    asked = {"role": role, "tables": [*metadata.tables, _VERSION]}
    found = []
    if owned := list(connection.execute(text(_OWNED), asked).scalars()):
        found.append(f"it owns {', '.join(owned)}, or may become the owner")
    rights: dict[str, list[str]] = {}
    for table, right in connection.execute(text(_RIGHTS), asked):
        if (table, right) not in _ALLOWED and table not in owned:
            rights.setdefault(table, []).append(right)
    return found + [f"{', '.join(more)} on {table}" for table, more in rights.items()]


def current(connection: Connection) -> str:
    """The role that is connected."""
    return str(connection.execute(text("SELECT current_user")).scalar())


def _execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement.replace("%", "%%"))  # the driver's placeholders
