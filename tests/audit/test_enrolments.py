import asyncio

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine, upgrade
from bastion.audit.enrolments import Enrolments
from bastion.config import Database
from bastion.errors import Unavailable
from tests.audit.test_database import limited_role
from tests.servers.postgres import Postgres


async def test_the_last_secret_counts(database: AsyncEngine) -> None:
    enrolments = Enrolments(database)
    assert await enrolments.newest("alice") is None
    for number, secret in enumerate((b"\0first", b"second\xff", None, b"fourth"), 1):
        await enrolments.enrol("alice", secret)
        assert await enrolments.newest("alice") == (None if secret is None else (number, secret))
    assert await enrolments.newest("Alice") is None


async def test_a_code_is_used_once_whichever_bastion_is_asked(database: AsyncEngine, empty_database: Database) -> None:
    other = create_engine(empty_database)
    here, there = Enrolments(database), Enrolments(other)
    await here.enrol("alice", b"secret")
    for step in range(5):
        tries = [one.use(1, step) for one in (here, there) for _ in range(4)]
        assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]
    await there.enrol("alice", b"another secret")
    assert await there.use(2, 0)
    await other.dispose()


async def test_an_outage_is_no_answer() -> None:
    away = create_engine(Database(url=SecretStr("sqlite+aiosqlite:////nowhere/at/all.db")))
    for asking in (Enrolments(away).newest("alice"), Enrolments(away).use(1, 1)):
        with pytest.raises(Unavailable) as caught:
            await asking
        assert caught.value.user_text == "sign-in is unavailable, try again"
    await away.dispose()


async def test_the_bastions_role_can_not_make_a_code_unused(postgres: Postgres) -> None:
    name = postgres.create_database()
    await upgrade(Database(url=SecretStr(postgres.url(name))))
    with postgres.connect(name, user=limited_role(postgres, name)) as connection:
        connection.execute("INSERT INTO enrolments (\"user\", created_at) VALUES ('alice', now())")
        connection.execute("INSERT INTO used_codes VALUES (1, 1, now())")
        for change in (
            "DELETE FROM used_codes",
            "UPDATE used_codes SET step = 2",
            "DELETE FROM enrolments",
            "UPDATE enrolments SET \"user\" = 'bob'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change)
