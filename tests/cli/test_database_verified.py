import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bastion.audit.database import create_engine, upgrade
from bastion.audit.log import AuditLog
from bastion.audit.sessions import SessionRows
from bastion.config import Config, load_config
from tests.audit.trail import one_session
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\nbastion_id: b1\naudit: {file: audit.jsonl}\n")
    asyncio.run(_fill(load_config(path)))
    return path


async def _fill(config: Config) -> None:
    await upgrade(config.database)
    engine = create_engine(config.database)
    log = AuditLog(config.audit, config.bastion_id, engine, config.state_folder)
    async with log, SessionRows(engine, "b1") as rows:
        await one_session(log, rows, "s1", None)
    await engine.dispose()


def change(config: Path, statement: str) -> None:
    with closing(sqlite3.connect(load_config(config).database.url.get_secret_value().partition(":///")[2])) as database:
        database.execute(statement)
        database.commit()


def test_rows_that_are_as_the_log_has_them_and_one_that_was_changed(bastion: Run, config: Path) -> None:
    done = bastion("audit", "verify", "--database", "-c", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was changed, removed, added or re-ordered" in done.stdout
    *_, last = done.stdout.splitlines()
    assert last.startswith("database: ")
    assert last.endswith(" events are as the log has them")
    change(config, "UPDATE sessions SET \"user\" = 'm' || char(27) || '[2J'")
    done = bastion("audit", "verify", "--database", "-c", config)
    assert done.returncode == 1
    *_, first, last, _ = done.stdout.splitlines()
    assert first.startswith("sessions: session s1: changed: user is 'm\\x1b[2J', entry ")
    assert last.endswith(" says 'alice'")
    done = bastion("audit", "verify", "-c", config)
    assert done.returncode == 0


def test_a_database_that_is_not_there(bastion: Run, config: Path) -> None:
    change(config, "DROP TABLE events")
    done = bastion("audit", "verify", "--database", "-c", config)
    assert done.returncode not in (0, None)
    assert "events" in done.stderr
    assert "Traceback" not in done.stderr
