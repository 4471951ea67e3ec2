import asyncio
import multiprocessing
import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import _migration_engine, create_engine, describe, grants, upgrade
from bastion.audit.tables import metadata
from bastion.config import Database
from bastion.errors import ConfigError
from tests.servers.postgres import Postgres
from tests.servers.process import free_port

INDEXED = "commands_text", "commands_content_trigrams"  # the text of commands; what SQLAlchemy knows no words for


async def test_upgrade_makes_the_tables_that_the_code_has(database: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[Any]:
        opts = {"include_object": lambda _object, name, *_: not name.startswith(INDEXED)}
        return compare_metadata(MigrationContext.configure(connection, opts=opts), metadata)

    async with database.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_upgrade_twice_does_nothing(database: AsyncEngine, empty_database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO events (id, time, event, bastion_id, entry)"
                " VALUES ('1', '2026-01-01 00:00:00+00', 'config.reloaded', 'b', '{}')"
            )
        )
    await upgrade(empty_database)
    async with database.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM events"))).scalar() == 1


def _upgrade(database: Database, start: Any, results: Any) -> None:
    start.wait()
    try:
        asyncio.run(upgrade(database))
        results.put("")
    except BaseException as error:
        results.put(repr(error))


def test_bastions_that_start_at_once(empty_database: Database) -> None:
    fresh = multiprocessing.get_context("spawn")
    start, results = fresh.Barrier(3), fresh.Queue()
    processes = [fresh.Process(target=_upgrade, args=(empty_database, start, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [""] * 3
    for process in processes:
        process.join(20)
    results.close()


def test_a_new_file_is_there_with_its_write_ahead_log_or_not_at_all(tmp_path: Path) -> None:
    """SQLite fails at once, and does not wait, where two change the same file to one."""
    start = threading.Barrier(4)

    def make_each() -> None:
        for number in range(30):
            start.wait(20)
            _migration_engine(make_url(f"sqlite+aiosqlite:///{tmp_path}/{number}.db")).dispose()

    with ThreadPoolExecutor(4) as makers:
        for made in [makers.submit(make_each) for _ in range(4)]:
            made.result()
    files = {path.name: path for path in tmp_path.iterdir()}
    assert files.keys() == {f"{number}.db" for number in range(30)}
    for path in files.values():
        assert path.read_bytes()[18:20] == b"\2\2"  # https://www.sqlite.org/fileformat.html#file_format_version_numbers
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_connection_that_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    """It would speak to an event loop that may be closed by then, in the middle of whatever comes next."""
    engine = create_engine(Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/nowhere.db")))
    before = set(threading.enumerate())
    for _ in range(50):
        with pytest.raises(OperationalError):
            await engine.connect()
        assert [one for one in set(threading.enumerate()) - before if "_connection_worker_thread" in one.name] == []
    await engine.dispose()


async def test_a_failed_upgrade_leaves_nothing(empty_database: Database, tmp_path: Path) -> None:
    (tmp_path / "bastion.db").touch()
    engine = create_engine(empty_database)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE events (other integer)"))
    with pytest.raises(ConfigError, match=r'^database\.url: .*(table events|"events") already exists'):
        await upgrade(empty_database)
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["events"]
    await engine.dispose()


async def test_tables_of_a_newer_version(database: AsyncEngine, empty_database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"newer version of bastion.*9999"):
        await upgrade(empty_database)


async def test_sqlite_is_for_the_bastion_only_and_waits_for_others(tmp_path: Path) -> None:
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/b.db"))
    await upgrade(config)
    engine = create_engine(config)
    async with engine.connect() as connection:
        values = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
        assert values == ["wal", 1, 5000]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600}, modes
    await engine.dispose()


async def test_errors_name_the_option_and_never_the_password(postgres: Postgres, tmp_path: Path) -> None:
    name = postgres.create_database()
    (tmp_path / "text").write_text("this is no database, but long enough to be taken for one: " + "x" * 200)
    secret = "s3cret-value"
    for url, what in {
        postgres.tcp_url(name, password=secret): "password authentication failed",
        postgres.tcp_url("nowhere"): 'database "nowhere" does not exist',
        f"postgresql+psycopg://u:{secret}@127.0.0.1:{free_port()}/x": "refused",
        f"sqlite+aiosqlite:///{tmp_path}/none/b.db": "No such file or directory",
        f"sqlite+aiosqlite:///{tmp_path}": "Is a directory",
        f"sqlite+aiosqlite:///{tmp_path}/text": "not a database",
        "sqlite+aiosqlite://": "in memory",
    }.items():
        with pytest.raises(ConfigError) as caught:
            await upgrade(Database(url=SecretStr(url)))
        (problem,) = caught.value.problems
        assert problem.startswith("database.url: ")
        assert what in problem
        assert secret not in problem
        assert problem.isprintable()


async def test_over_tcp_with_a_password(postgres: Postgres) -> None:
    config = Database(url=SecretStr(postgres.tcp_url(postgres.create_database())))
    await upgrade(config)
    engine = create_engine(config)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SHOW application_name"))).scalar() == "bastion"
    await engine.dispose()


def limited_role(postgres: Postgres, database: str) -> str:
    """A role with what `bastion db grants` gives, after it had been given too much."""
    role = f'bastion "{database}'
    with postgres.connect(database) as connection:
        quoted = '"' + role.replace('"', '""') + '"'
        connection.execute(f"CREATE ROLE {quoted} LOGIN; GRANT ALL ON sessions, events TO {quoted}")
        connection.execute(grants(role))
    return role


async def test_the_role_may_do_no_more_than_it_needs(postgres: Postgres) -> None:
    name = postgres.create_database()
    await upgrade(Database(url=SecretStr(postgres.url(name))))
    role = limited_role(postgres, name)
    with postgres.connect(name) as owner:
        owner.execute(
            "INSERT INTO sessions VALUES ('s', 'c', 'b', 'alice', '::1', 'web', 'w', 1, 'e', 'i', null, true, null,"
            " 'active', now(), null, now())"
        )
        owner.execute("INSERT INTO events (id, time, event, bastion_id, entry) VALUES ('1', now(), 'x', 'b', '{}')")
        owner.execute(
            'INSERT INTO commands (command_id, session_id, "user", app_name, address, content, confidence, prompt, at,'
            " degraded, created_at) VALUES ('c', 's', 'alice', 'web', 'web.w.1', 'ls', 'exact', '$ ', 1, false, now())"
        )
    with postgres.connect(name, user=role) as connection:
        for table in ("sessions", "commands", "events", "alembic_version"):
            for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE", f"DROP TABLE {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
        for change in (
            "sessions SET \"user\" = 'bob'",
            "sessions SET created_at = now()",
            "sessions SET session_id = 'x', status = 'ended'",
            "events SET entry = ''",
            "commands SET content = ''",
            "alembic_version SET version_num = ''",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE {change}")
        connection.execute("UPDATE sessions SET status = 'ended', ended_at = now(), updated_at = now()")
    # The upgrade at every start is nothing to do, and so nothing that it may not.
    await upgrade(Database(url=SecretStr(postgres.url(name).replace("postgres@", f"{role.replace(' ', '%20')}@", 1))))


async def test_a_role_that_may_not_upgrade_says_who_may(postgres: Postgres) -> None:
    name = postgres.create_database()
    with postgres.connect(name) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    with pytest.raises(ConfigError, match=r"permission denied.*`bastion db upgrade` has to be run with the role"):
        await upgrade(Database(url=SecretStr(postgres.url(name, user=name))))


def test_describe_is_one_printable_line() -> None:
    assert describe(OSError("a\n\x1b[31m\u202eb")) == r"a \x1b[31m\u202eb"
    assert describe(TimeoutError()) == "no answer in time"
    assert describe(sqlite3.OperationalError("disk is full")) == "disk is full"


def test_the_migrations_are_in_the_package() -> None:
    from setuptools import find_packages

    root = Path(__file__).parents[2]
    assert {"bastion.audit.migrations", "bastion.audit.migrations.versions"} <= set(
        find_packages(os.fspath(root), include=["bastion*"])
    )
