"""The rows and the events that a session leaves, on PostgreSQL and on SQLite, and what happens without a database."""

import contextlib
import json
import signal
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from tests.audit.sections import others
from tests.e2e.conftest import Start
from tests.e2e.terminal import Terminal, on_terminal
from tests.servers.bastion import BASTION, Bastion, configuration, serving
from tests.servers.engine import Engine
from tests.servers.postgres import Postgres, postgres_server
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"
ROLE = "bastion"
NO_DATABASE = b"The bastion's database does not answer, so no session can begin."
SESSION_FIELDS = ("connection_id", "session_id", "user", "source_ip", "address", "container_id", "engine")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def on_postgres(
    bastion: Bastion, engine: Engine, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bastion]:
    """Serves with the role of `bastion db grants`, in tables that another role owns."""
    folder, name = tmp_path_factory.mktemp("on_postgres"), postgres.create_database()
    owner = folder / "owner.yaml"
    owner.write_text(yaml.safe_dump(configuration(engine.url, 1, {"database": {"url": postgres.url(name)}})))
    subprocess.run([*BASTION, "db", "upgrade", "-c", str(owner)], check=True, capture_output=True)
    granted = subprocess.run([*BASTION, "db", "grants", "--role", ROLE], check=True, capture_output=True, text=True)
    with postgres.connect(name) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        connection.execute(granted.stdout)
    for file in ("keys", "users.yaml", "alice_key", "bob_key"):
        (folder / file).symlink_to(bastion.folder / file)
    with serving(folder, engine.url, database={"url": postgres.url(name, ROLE)}) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Bastion:
    """A bastion on this database."""
    found: Bastion = request.getfixturevalue("bastion" if request.param == "sqlite" else "on_postgres")
    return found


def query(bastion: Bastion, statement: str) -> list[dict[str, Any]]:
    """Not through the bastion's own code."""
    section = yaml.safe_load((bastion.folder / "config.yaml").read_text()).get("database")
    if section is not None:
        with psycopg.connect(section["url"].replace("+psycopg", ""), row_factory=dict_row) as connection:
            return connection.execute(statement.encode()).fetchall()
    with contextlib.closing(sqlite3.connect(f"file:{bastion.folder}/bastion.db?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(statement)]


def moment(value: str | datetime) -> datetime:
    """As either database gives it."""
    made = datetime.fromisoformat(value) if isinstance(value, str) else value
    return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)


def row(bastion: Bastion, session_id: str) -> dict[str, Any]:
    (found,) = query(bastion, f"SELECT * FROM sessions WHERE session_id = '{session_id}'")
    return found


def status(bastion: Bastion, session_id: str) -> object:
    return row(bastion, session_id)["status"]


def lines(bastion: Bastion) -> list[str]:
    return (bastion.folder / "audit.jsonl").read_text().splitlines()


def entries(bastion: Bastion) -> list[str]:
    return [str(found["entry"]) for found in query(bastion, "SELECT entry FROM events ORDER BY position")]


def listed(bastion: Bastion, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [*BASTION, "sessions", "list", *options, "-c", f"{bastion.folder}/config.yaml"]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=30)


def container_id(engine: Engine) -> str:
    (container,) = engine.client.containers.list(filters={"label": ["bastion.app=web", "bastion.proc=busy"]})
    return str(container.id)


def test_the_row_of_a_session(either: Bastion, engine: Engine) -> None:
    began = datetime.now(UTC)
    command = "echo 'gr\u00fc\u00dfe'; exit 7"
    assert either.ssh(BUSY, command).returncode == 7
    end = either.wait_for_event("session.end", session_id=either.events("session.start")[-1]["session_id"])
    wait_until(lambda: status(either, end["session_id"]) == "ended", "the row is closed")
    found = row(either, end["session_id"])
    created, ended, updated = (moment(found.pop(name)) for name in ("created_at", "ended_at", "updated_at"))
    assert began <= created <= ended <= updated <= datetime.now(UTC)
    assert bool(found.pop("terminal")) is False
    assert found == {
        "session_id": end["session_id"],
        "connection_id": end["connection_id"],
        "bastion_id": end["bastion_id"],
        "user": "alice",
        "source_ip": "127.0.0.1",
        "app_name": "web",
        "proc_name": "busy",
        "instance_no": 1,
        "engine": "test",
        "container_id": container_id(engine),
        "node_ip": None,
        "command": command,
        "status": "ended",
    }
    with on_terminal(either.ssh_command(BUSY)) as terminal:
        terminal.expect(rb"[#$] ")
        session_id = either.events("session.start")[-1]["session_id"]
        active = row(either, session_id)
        assert (active["status"], active["ended_at"], active["command"]) == ("active", None, None)
        assert bool(active["terminal"]) is True
    wait_until(lambda: status(either, session_id) == "disconnected", "the row is closed")


def test_every_event_says_who_and_where(either: Bastion, engine: Engine) -> None:
    before = len(lines(either))
    with on_terminal(either.ssh_command(BUSY)) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.resize(101, 31)
        either.wait_for_event("session.resize", columns=101)
        terminal.type(b"exit\r")
        assert terminal.wait() == 0
    assert either.ssh("alice+vault.db.1", "true").returncode == 1
    assert either.ssh(BUSY, "true", key="bob").returncode == 255
    wait_until(lambda: closed(either, before) == (3, 1), "all is closed")
    made = others(json.loads(line) for line in lines(either)[before:])
    by_connection: dict[str, list[dict[str, Any]]] = {}
    for event in made:
        by_connection.setdefault(event["connection_id"], []).append(event)
        assert event["source_ip"] == "127.0.0.1"
        assert isinstance(event["source_port"], int)
        assert event["bastion_id"]
        assert event.get("user") == (None if event["event"] == "connection.open" else "alice")
    session, denied, failed = by_connection.values()
    names = [event["event"] for event in session]
    assert names[:3] == ["connection.open", "user.login", "session.start"]
    assert names.count("connection.close") == names.count("session.end") == 1
    assert set(names[3:]) - {"session.command"} == {"session.resize", "session.end", "connection.close"}
    where = {"address": "web.busy.1", "container_id": container_id(engine), "engine": "test"}
    of_session = [event for event in session if event["event"].startswith("session.")]
    (session_id,) = {event["session_id"] for event in of_session}
    for event in of_session:
        assert {name: event[name] for name in where} == where
    assert [event["event"] for event in denied] == [
        "connection.open",
        "user.login",
        "access.denied",
        "connection.close",
    ]
    assert (denied[2]["address"], denied[2]["reason"]) == ("vault.db.1", "not_owner")
    assert denied[2]["session_id"]
    assert [event["event"] for event in failed] == ["connection.open", "user.login_failed", "connection.close"]
    assert (failed[1]["method"], failed[1]["reason"]) == ("publickey", "key_not_allowed")
    # and the table has all of it, in columns that can be searched, and byte for byte
    wait_until(lambda: entries(either) == lines(either), "the table is the file's copy")
    columns = ", ".join(f'"{name}"' for name in (*SESSION_FIELDS, "event", "reason", "bastion_id", "id"))
    for found in query(either, f"SELECT {columns}, entry FROM events WHERE session_id = '{session_id}'"):
        event = json.loads(str(found.pop("entry")))
        assert found == {name: event.get(name) for name in found}
        assert all(found[name] for name in SESSION_FIELDS)


def closed(bastion: Bastion, before: int) -> tuple[int, int]:
    """Connections and sessions that ended after the first `before` lines."""
    names = [json.loads(line)["event"] for line in lines(bastion)[before:]]
    return names.count("connection.close"), names.count("session.end")


def test_sessions_are_listed(either: Bastion, start: Start) -> None:
    client = start(either.ssh_command(BUSY, "cat; echo listed"))
    session_id = either.wait_for_event("session.start", command="cat; echo listed")["session_id"]
    assert either.ssh("alice+web.worker.1", "true").returncode == 0
    active = [json.loads(line) for line in listed(either, "--json", "--active").stdout.splitlines()]
    assert session_id in {found["session_id"] for found in active}
    assert {found["status"] for found in active} == {"active"}
    latest, *_ = [
        json.loads(line) for line in listed(either, "--json", "--user", "alice", "--app", "web").stdout.splitlines()
    ]
    assert (latest["command"], latest["proc_name"], latest["instance_no"]) == ("true", "worker", 1)
    assert client.communicate(b"", timeout=10)[0] == b"listed\n"
    wait_until(lambda: status(either, session_id) == "ended", "the row is closed")
    done = listed(either)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if session_id in line]
    words = line.split()
    assert words[1:4] == ["alice", "127.0.0.1", "web.busy.1"]
    assert words[6:] == ["ended", "cat;", "echo", "listed"]
    assert listed(either, "--json", "--user", "nobody").stdout == ""


def test_the_role_that_serves_can_change_and_remove_nothing(on_postgres: Bastion) -> None:
    assert on_postgres.ssh(BUSY, "true").returncode == 0
    for statement in (
        "DELETE FROM sessions",
        "DELETE FROM events",
        "UPDATE events SET entry = ''",
        "TRUNCATE events",
        "UPDATE sessions SET \"user\" = 'bob'",
        "DROP TABLE events",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(on_postgres, statement)


def echo_times(terminal: Terminal, count: int = 20) -> list[float]:
    times = []
    for number in range(count):
        key = b"abcdefghijklmnopqrst"[number : number + 1]
        began = time.monotonic()
        terminal.type(key)
        terminal.expect(key)
        times.append(time.monotonic() - began)
    return times


@pytest.mark.alone
@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
def test_the_database_is_away_in_mid_session(on_postgres: Bastion, postgres: Postgres, how: str, start: Start) -> None:
    bastion = on_postgres
    mine, others = f": {how}; cat", f": {how}; cat; echo end; exit 8"
    with on_terminal(bastion.ssh_command(BUSY, mine, options=("-tt",))) as terminal:
        session_id = bastion.wait_for_event("session.start", command=mine)["session_id"]
        other = start(bastion.ssh_command(BUSY, others))
        terminal.type(b"before\r")
        terminal.expect(rb"before\r\nbefore\r\n")
        other_id = bastion.wait_for_event("session.start", command=others)["session_id"]
        usual = statistics.median(echo_times(terminal))
        {"stopped": postgres.stop, "killed": postgres.kill, "frozen": lambda: postgres.signal(signal.SIGSTOP)}[how]()
        try:
            terminal.resize(99, 33)
            bastion.wait_for_event("session.resize", session_id=session_id, columns=99)
            new = start(bastion.ssh_command(BUSY, "echo new"), stderr=subprocess.PIPE)
            during = echo_times(terminal)
            assert statistics.median(during) < 5 * usual + 0.05
            assert max(during) < 2
            out, errors = new.communicate(timeout=20)
            assert (out, new.returncode) == (b"", 1)
            assert NO_DATABASE in errors
            # one that ends meanwhile ends as ever
            assert other.communicate(b"in\n", timeout=10)[0] == b"in\nend\n"
            assert other.returncode == 8
            if how != "frozen":
                done = listed(bastion)
                assert done.returncode == 1
                assert "Traceback" not in done.stderr
                assert str(postgres.folder) in done.stderr
        finally:
            postgres.signal(signal.SIGCONT) if how == "frozen" else postgres.start()
        refused = bastion.wait_for_event("access.denied", reason="audit_unavailable")["session_id"]
        wait_until(lambda: status(bastion, other_id) == "ended", "what ended meanwhile is closed")
        assert status(bastion, session_id) == "active"
        terminal.type(b"\x15after\r")
        terminal.expect(rb"after\r\nafter\r\n")
        wait_until(lambda: bastion.ssh(BUSY, "echo new").stdout == b"new\n", "sessions begin again")
        terminal.type(b"\x04")
        assert terminal.wait() == 0
    wait_until(lambda: status(bastion, session_id) == "ended", "the row is closed")
    assert query(bastion, f"SELECT status FROM sessions WHERE session_id = '{refused}' AND status = 'active'") == []
    assert bastion.events("audit.failed", sink="database events")
    bastion.wait_for_event("audit.recovered", sink="database events", dropped=0)
    wait_until(lambda: entries(bastion) == lines(bastion), "the table is the file's copy")
    assert query(bastion, "SELECT session_id FROM sessions WHERE status = 'active'") == []
