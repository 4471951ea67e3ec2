"""The bastion's role on a real PostgreSQL: what it is refused, and how it is known that a role may do more."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from bastion.audit import roles
from bastion.audit.database import upgrade
from bastion.audit.tables import UPDATABLE, metadata
from bastion.config import Database
from bastion.errors import BastionError
from tests.servers.postgres import Postgres

ROLE = "bas\"tion 50%: 'x'"
TABLES = [*metadata.tables, "alembic_version"]
Refused = psycopg.errors.InsufficientPrivilege


@dataclass
class Place:
    postgres: Postgres
    name: str

    def excess(self, role: str = ROLE) -> list[str]:
        with roles.as_owner(make_url(self.postgres.url(self.name))) as connection:
            return roles.excess(connection, role)

    def owner(self, statement: str) -> None:
        with self.postgres.connect(self.name) as connection:
            connection.execute(statement.encode())

    def as_role(self, statement: str) -> None:
        with self.postgres.connect(self.name, user=ROLE) as connection:
            connection.execute(statement.encode())


@pytest.fixture
async def place(postgres: Postgres) -> Iterator[Place]:
    """A database whose tables have a row each, and the role."""
    name = postgres.create_database()
    await upgrade(Database(url=SecretStr(postgres.url(name))))
    with roles.as_owner(make_url(postgres.url(name))) as connection:
        assert not roles.exists(connection, ROLE)
        roles.create(connection, ROLE, "grüße")
        roles.grant(connection, ROLE)
        roles.grant(connection, ROLE)
        assert roles.exists(connection, ROLE)
    place = Place(postgres, name)
    place.as_role(
        "INSERT INTO sessions VALUES ('s', 'c', 'b', 'alice', '::1', 'web', 'w', 1, 'e', 'i', null, true, null,"
        " 'active', now(), null, now());"
        "INSERT INTO events (id, time, event, bastion_id, entry) VALUES ('1', now(), 'x', 'b', '{}');"
        'INSERT INTO commands (command_id, session_id, "user", app_name, address, content, confidence, prompt, at,'
        " degraded, created_at) VALUES ('c', 's', 'alice', 'web', 'web.w.1', 'ls', 'exact', '$ ', 1, false, now());"
        "INSERT INTO enrolments (\"user\", secret, created_at) VALUES ('alice', 'x', now());"
        "INSERT INTO used_codes SELECT position, 1, now() FROM enrolments"
    )
    yield place
    place.owner(f"DROP OWNED BY {_quoted(ROLE)}; DROP ROLE {_quoted(ROLE)}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_nothing_that_is_written_can_be_changed_or_taken_away(place: Place) -> None:
    for table in TABLES:
        with place.postgres.connect(place.name, user=ROLE) as connection:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
            for statement in (
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
                f"DROP TABLE {table} CASCADE",
                f"ALTER TABLE {table} RENAME TO x",
                f"ALTER TABLE {table} ADD COLUMN x text",
                f"ALTER TABLE {table} DISABLE TRIGGER ALL",
                f"ALTER TABLE {table} OWNER TO {_quoted(ROLE)}",
                f"CREATE TRIGGER x BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                f"CREATE RULE x AS ON INSERT TO {table} DO INSTEAD NOTHING",
            ):
                with pytest.raises(Refused):
                    connection.execute(statement.encode())


def test_only_the_end_of_a_session_can_be_updated(place: Place) -> None:
    with place.postgres.connect(place.name, user=ROLE) as connection:
        for table in metadata.tables.values():
            for column in table.columns:
                update = f"UPDATE {table.name} SET {_quoted(column.name)} = {_quoted(column.name)}".encode()
                if column.name in UPDATABLE.get(table.name, ()):
                    connection.execute(update)
                else:  # of an identity, it is said first that nobody may set it
                    with pytest.raises(Refused if column.identity is None else psycopg.errors.GeneratedAlways):
                        connection.execute(update)
        with pytest.raises(Refused):
            connection.execute("UPDATE alembic_version SET version_num = version_num")


def test_the_triggers_and_their_functions_stay(place: Place) -> None:
    with place.postgres.connect(place.name, user=ROLE) as connection:
        for trigger in ("bastion_events_in_order", "bastion_events_told"):
            for statement in (
                f"DROP TRIGGER {trigger} ON events",
                f"ALTER TABLE events DISABLE TRIGGER {trigger}",
                f"ALTER TRIGGER {trigger} ON events RENAME TO x",
                f"DROP FUNCTION {trigger}() CASCADE",
                f"CREATE OR REPLACE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
                "SET session_replication_role = replica",
            ):
                with pytest.raises(Refused):
                    connection.execute(statement.encode())


def test_nothing_is_in_excess_of_the_grants(place: Place) -> None:
    assert place.excess() == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("GRANT DELETE, TRUNCATE ON events TO {}", ["DELETE, TRUNCATE on events"]),
        ("GRANT DELETE ON commands TO PUBLIC", ["DELETE on commands"]),
        (
            'GRANT UPDATE ("user", source_ip) ON sessions TO {}',
            ["UPDATE (source_ip), UPDATE (user) on sessions"],
        ),
        ("GRANT UPDATE (content) ON commands TO {}", ["UPDATE (content) on commands"]),
        ("GRANT INSERT ON alembic_version TO {}", ["INSERT on alembic_version"]),
        ("ALTER TABLE events OWNER TO {}", ["it owns events, or may become the owner"]),
        ("ALTER ROLE {} SUPERUSER", ["it is a superuser"]),
    ],
)
def test_what_is_in_excess_is_named(place: Place, given: str, found: list[str]) -> None:
    place.owner(given.format(_quoted(ROLE)))
    assert place.excess() == found
    place.owner(f"ALTER ROLE {_quoted(ROLE)} NOSUPERUSER; ALTER TABLE events OWNER TO postgres")


def test_a_member_of_the_owner_is_as_good_as_the_owner(place: Place) -> None:
    owner = f"{place.name}_owner"
    place.owner(f"CREATE ROLE {owner}; ALTER TABLE events OWNER TO {owner}; ALTER ROLE {_quoted(ROLE)} NOINHERIT")
    assert place.excess() == []
    place.owner(f"GRANT {owner} TO {_quoted(ROLE)}")
    assert place.excess() == ["it owns events, or may become the owner"]


def test_the_password_is_the_roles_and_reaches_the_server_as_a_hash(place: Place) -> None:
    with place.postgres.connect(place.name) as connection:
        found = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE]).fetchone()
    assert found is not None
    assert found[0].startswith("SCRAM-SHA-256$")
    at = {"host": "127.0.0.1", "port": place.postgres.port, "dbname": place.name, "user": ROLE}
    psycopg.connect(**at, password="grüße").close()  # type: ignore[arg-type] # one dict of both
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**at, password="other")  # type: ignore[arg-type]


def test_what_the_owner_may_not_is_said(place: Place) -> None:
    with (
        pytest.raises(BastionError, match=r"^--owner-url: .*permission denied to create role"),
        roles.as_owner(make_url(place.postgres.url(place.name)).set(username=ROLE)) as connection,
    ):
        roles.create(connection, "another", "x")
