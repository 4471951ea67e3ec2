"""Both databases, real, for every test that has one."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine, upgrade
from bastion.config import Database
from tests.servers.postgres import Postgres, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """For a test that kills it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """The configuration of a database without tables."""
    if request.param == "sqlite":
        return Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/bastion.db"))
    server: Postgres = request.getfixturevalue("postgres")
    return Database(url=SecretStr(server.url(server.create_database())))


@pytest.fixture
async def database(empty_database: Database) -> AsyncIterator[AsyncEngine]:
    await upgrade(empty_database)
    engine = create_engine(empty_database)
    yield engine
    await engine.dispose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
