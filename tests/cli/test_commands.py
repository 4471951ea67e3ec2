import asyncio
import csv
import io
import json
from datetime import datetime
from pathlib import Path

import pytest

from bastion.audit.database import create_engine, upgrade
from bastion.audit.sessions import SessionRows
from bastion.config import Database, load_config
from tests.audit.sections import others
from tests.audit.test_search import typed
from tests.audit.test_sessions import begin
from tests.cli.conftest import Run

HOSTILE = "echo \x1b]0;owned\x07\x1b[2J\u202e [red]\n\udc80"


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
        await begin(rows, "s1")
        await typed(engine, "s1", "alice", "web.worker.1", "ls -l", HOSTILE, "caf\xe9", at=61.04)
        await typed(engine, "s1", "alice", "web.worker.1", "x", confidence="likely", degraded=True)
    await engine.dispose()


def test_the_table_obeys_nobody(bastion: Run, config: Path) -> None:
    done = bastion("commands", "search", "-c", config)
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["time", "user", "container", "session", "at", "confidence", "command"]
    assert all(line.isprintable() for line in lines)
    assert [line.split()[1:] for line in lines] == [
        ["alice", "web.worker.1", "s1", "0:00.0", "likely,", "degraded", "x"],
        ["alice", "web.worker.1", "s1", "1:01.0", "exact", "café"],
        ["alice", "web.worker.1", "s1", "1:01.0", "exact", "echo", r"\x1b]0;owned\x07\x1b[2J\u202e", r"[red]\n\udc80"],
        ["alice", "web.worker.1", "s1", "1:01.0", "exact", "ls", "-l"],
    ]


def test_programs_get_every_column(bastion: Run, config: Path) -> None:
    done = bastion("commands", "search", "--json", "--like", "ECHO", "--since", "1h", "-c", config)
    assert done.stdout.isascii()
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["content"] == HOSTILE.replace("\udc80", "\\udc80")
    assert datetime.fromisoformat(row["created_at"])
    done = bastion("commands", "search", "--csv", "--regex", "^(ls|echo)", "-c", config)
    assert done.stdout.replace("\n", "").isprintable()
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [found["content"] for found in rows] == [r"echo \x1b]0;owned\x07\x1b[2J\u202e [red]\n\udc80", "ls -l"]
    assert set(rows[0]) == set(row)


def test_pages(bastion: Run, config: Path) -> None:
    done = bastion("commands", "search", "--confidence", "exact", "--limit", "2", "-c", config)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.startswith("There may be more: --before ")
    before = done.stderr.split()[-1]
    done = bastion("commands", "search", "--confidence", "exact", "--limit", "2", "--before", before, "-c", config)
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["-l"]
    assert done.stderr == ""


def test_the_search_is_in_the_audit_log(bastion: Run, config: Path) -> None:
    bastion("commands", "search", "--like", "x\x1b", "--user", "bob", "--confidence", "exact", "-c", config)
    (event,) = others(map(json.loads, (config.parent / "audit.jsonl").read_text().splitlines()))
    assert (event["event"], event["what"], event["user"]) == ("audit.searched", "commands", "root")
    assert event["filters"] == {"user": "bob", "like": "x\x1b", "confidence": ["exact"]}


def test_what_is_wrong_is_a_sentence(bastion: Run, config: Path) -> None:
    done = bastion("commands", "search", "--since", "tomorrow-ish", "-c", config)
    assert done.returncode == 2
    assert "tomorrow-ish" in done.stderr
    done = bastion("commands", "search", "--regex", "(", "-c", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "--regex: missing ), unterminated subpattern at position 0\n"


def test_a_session_is_shown_with_its_commands(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "show", "s1", "-c", config)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "session", "user", "container", "bastion", "began", "ended", "command",
    ]  # fmt: skip
    assert lines[2] == "container  web.worker.1  f00df00df00d of engine local"
    assert lines[5] == "ended      active"
    assert [line.split()[-1] for line in lines[9:]] == ["-l", r"[red]\n\udc80", "café", "x"]
    done = bastion("sessions", "show", "s1", "--json", "-c", config)
    assert next(command["content"] for command in json.loads(done.stdout)["commands"]) == "ls -l"
