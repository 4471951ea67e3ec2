"""A real PostgreSQL that is away for a while, or whose disk is full: strict and best effort, and nothing is lost."""

import os
import random
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.e2e.conftest import Start
from tests.e2e.test_outages import fill
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.postgres import Postgres, postgres_server
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"
NO_DATABASE = b"The bastion's database does not answer, so no session can begin."
OUTAGE = float(os.environ.get("BASTION_OUTAGE_SECONDS", "3"))  # 60 is the minute that a suite should not cost
Done = subprocess.CompletedProcess[bytes]


def asked(bastion: Bastion) -> Done:
    """A session whose row takes some room."""
    return bastion.ssh(BUSY, f"echo in # {random.randbytes(1500).hex()}")


def is_refused(done: Done) -> bool:
    if done.returncode == 0:
        assert done.stdout == b"in\n"
        return False
    assert (done.stdout, done.returncode) == (b"", 1)
    assert NO_DATABASE in done.stderr
    return True


def all_is_there(bastion: Bastion, postgres: Postgres, name: str) -> None:
    """Each entry of the log, and each session that began, with its end."""

    def stored() -> list[str]:
        with postgres.connect(name) as connection:
            return [line for (line,) in connection.execute("SELECT entry FROM events ORDER BY position").fetchall()]

    log = bastion.folder / "audit.jsonl"
    wait_until(lambda: stored() == log.read_text().splitlines(), "the table is the file's copy", 60)
    began = {event["session_id"] for event in bastion.events("session.start")}
    wait_until(lambda: began == {event["session_id"] for event in bastion.events("session.end")}, "all have ended")

    def settled() -> bool:
        with postgres.connect(name) as connection:
            rows = dict(connection.execute("SELECT session_id, status FROM sessions").fetchall())
        others = {status for session_id, status in rows.items() if session_id not in began}
        return {rows[session_id] for session_id in began} == {"ended"} and others <= {"refused"}

    wait_until(settled, "each has its row, and its end")


def verifies(folder: Path) -> None:
    words = ["audit", "verify", "--database", "--recordings", "-c", str(folder / "config.yaml")]
    done = subprocess.run([*BASTION, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " events are as the log has them" in done.stdout
    assert "not there yet" not in done.stdout


@pytest.mark.timeout(120 + 2 * OUTAGE)
@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_the_database_is_away_for_a_while(folder: Path, engine: Engine, start: Start, mode: str) -> None:
    with postgres_server() as postgres:
        name = postgres.create_database()
        with serving(folder, engine.url, database={"url": postgres.url(name)}, audit={"mode": mode}) as bastion:
            runs = start(bastion.ssh_command(BUSY, "echo ready; cat; echo end"))
            assert runs.stdout is not None
            assert runs.stdout.readline() == b"ready\n"
            postgres.stop()
            over, refused = time.monotonic() + OUTAGE, set()
            while time.monotonic() < over:
                refused.add(is_refused(asked(bastion)))
            assert refused == {mode == "strict"}
            out, _ = runs.communicate(b"goes on\n", timeout=20)
            assert (out, runs.returncode) == (b"goes on\nend\n", 0)
            assert len(bastion.events("audit.failed", sink="database events")) == 1
            assert not bastion.events("audit.recovered")
            postgres.start()
            bastion.wait_for_event("audit.recovered", sink="database events", dropped=0)
            wait_until(lambda: not is_refused(asked(bastion)), "sessions begin again")
            all_is_there(bastion, postgres, name)
        verifies(folder)


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_the_database_s_disk_is_full(folder: Path, engine: Engine, start: Start, mode: str) -> None:
    with postgres_server(disk="160m") as postgres:
        name = postgres.create_database()
        with serving(folder, engine.url, database={"url": postgres.url(name)}, audit={"mode": mode}) as bastion:
            runs = start(bastion.ssh_command(BUSY, "echo ready; cat; echo end"))
            assert runs.stdout is not None
            assert runs.stdout.readline() == b"ready\n"
            filler = fill(postgres.folder)
            while not bastion.events("audit.failed", sink="database events"):
                is_refused(asked(bastion))  # the tables' own last pages have room
            failed = bastion.wait_for_event("audit.failed", sink="database events")
            assert "No space left on device" in failed["reason"]
            if mode == "strict":
                wait_until(lambda: is_refused(asked(bastion)), "no session begins")
            else:
                assert not any(is_refused(asked(bastion)) for _ in range(5))
            out, _ = runs.communicate(b"goes on\n", timeout=20)  # what was begun goes on, and ends as ever
            assert (out, runs.returncode) == (b"goes on\nend\n", 0)
            with pytest.raises(psycopg.errors.DiskFull), postgres.connect(name) as connection:
                connection.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            filler.unlink()
            bastion.wait_for_event("audit.recovered", sink="database events", dropped=0)
            wait_until(lambda: not is_refused(asked(bastion)), "sessions begin again")
            all_is_there(bastion, postgres, name)
        verifies(folder)
