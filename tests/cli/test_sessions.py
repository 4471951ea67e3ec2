import asyncio
import json
import os
import re
from datetime import datetime
from pathlib import Path

import pytest

from bastion.audit.database import create_engine, upgrade
from bastion.audit.sessions import SessionRows
from bastion.config import Database, load_config
from bastion.model import Address, Container, ContainerState
from tests.audit.test_sessions import end
from tests.cli.conftest import Run

HOSTILE = "eve\x1b]0;owned\x07\x1b[2J\u202e[red]\n\udc80"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\nbastion_id: b1\n")
    asyncio.run(_fill(load_config(path).database))
    return path


async def _fill(database: Database) -> None:
    await upgrade(database)
    engine = create_engine(database)
    async with SessionRows(engine, "b1") as rows:
        for number, (user, app) in enumerate([("alice", "web"), (HOSTILE, "web"), ("alice", "shop")]):
            container = Container("e", "f00d", "n", "i", {}, ContainerState.RUNNING, Address(app, "worker", 1))
            await rows.begin(
                session_id=f"s{number}",
                connection_id="c",
                user=user,
                source_ip="192.0.2.7",
                container=container,
                terminal=number > 0,
                command="caf\xe9 [bold]x" if number == 0 else None,
            )
    await end(engine, "s0", "ended")
    await engine.dispose()


def test_the_table_obeys_nobody(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "list", "-c", config)
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["session", "user", "from", "container", "began", "ended", "status", "command"]
    assert [line.split()[0] for line in lines] == ["s2", "s1", "s0"]
    assert all(line.isprintable() for line in lines)
    assert r"eve\x1b]0;owned\x07\x1b[2J\u202e[red]\n\udc80" in lines[1]
    assert re.search(r"alice +192\.0\.2\.7 +web\.worker\.1 +\S+Z +\S+Z +ended +café \[bold\]x", lines[2])
    assert lines[0].rstrip().endswith("active  (shell)")


def test_a_terminal_that_knows_ascii_only(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "list", "-c", config, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9 [bold]x" in done.stdout


def test_json_has_every_column(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "list", "--json", "-c", config)
    assert done.stdout.isascii()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["session_id"] for row in rows] == ["s2", "s1", "s0"]
    assert rows[1]["user"] == HOSTILE.replace("\udc80", "\\udc80")
    assert rows[2] == {
        "session_id": "s0",
        "connection_id": "c",
        "bastion_id": "b1",
        "user": "alice",
        "source_ip": "192.0.2.7",
        "app_name": "web",
        "proc_name": "worker",
        "instance_no": 1,
        "engine": "e",
        "container_id": "f00d",
        "node_ip": None,
        "terminal": False,
        "command": "caf\xe9 [bold]x",
        "status": "ended",
        "created_at": rows[2]["created_at"],
        "ended_at": rows[2]["ended_at"],
        "updated_at": rows[2]["ended_at"],
    }
    assert datetime.fromisoformat(rows[2]["created_at"]) <= datetime.fromisoformat(rows[2]["ended_at"])


def test_filters(bastion: Run, config: Path) -> None:
    """Each reaches SessionRows.list; what it finds there is shown in tests/audit/test_sessions.py."""
    for options, expected in (("--user alice --active", ["s2"]), ("--app web --limit 1", ["s1"])):
        done = bastion("sessions", "list", "--json", "-c", config, *options.split())
        assert [json.loads(line)["session_id"] for line in done.stdout.splitlines()] == expected


def test_no_database_is_an_error_and_makes_none(bastion: Run, config: Path) -> None:
    (config.parent / "bastion.db").rename(config.parent / "elsewhere.db")
    done = bastion("sessions", "list", "-c", config)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "bastion.db: unable to open database file" in done.stderr
    assert not (config.parent / "bastion.db").exists()


def test_a_limit_of_nothing_is_refused(bastion: Run, config: Path) -> None:
    assert bastion("sessions", "list", "-c", config, "--limit", "0").returncode == 2
