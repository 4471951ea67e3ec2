"""Disks that are full, read-only or gone, and wrong configurations: nothing is lost, and it says what to mend."""

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bastion.recording.files import open_lines
from tests.e2e.conftest import Start
from tests.recordings import recordings as recordings_in
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"
CAN_NOT = b"Sessions can not be recorded at the moment, so none is started."


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 256 kB of its own."""
    disk = folder / "disk"
    disk.mkdir()
    assert mount("-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def no_session(bastion: Bastion, *words: str) -> None:
    """A login that is right does not get a session: the user reads a sentence, the log says why in `words`."""
    refused = len(bastion.events("session.end", status="refused"))
    done = bastion.ssh(BUSY, "echo ran > /tmp/ran; echo ran")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert CAN_NOT in done.stderr
    assert str(bastion.folder).encode() not in done.stderr
    wait_until(lambda: len(bastion.events("session.end", status="refused")) > refused, "session.end")
    (event,) = bastion.events("session.end", status="refused")[refused:]
    assert event["reason"] == "recording_failed"
    assert bastion.events("recording.failed", session_id=event["session_id"])
    for word in (*words, "recording.folder must be there, writable, and have free space"):
        assert word in event["detail"]


def a_session(bastion: Bastion) -> None:
    assert bastion.ssh(BUSY, "test ! -e /tmp/ran && echo in").stdout == b"in\n"


def recorded(path: Path) -> bytes:
    """The output that a recording holds."""
    with open_lines(path) as lines:
        header, *events = lines.read().splitlines()
    assert json.loads(header)["version"] == 2
    return "".join(json.loads(event)[2] for event in events if json.loads(event)[1] == "o").encode()


def test_recordings_on_a_disk_that_is_full_read_only_or_gone(
    folder: Path, engine: Engine, small_disk: Path, start: Start
) -> None:
    recordings = small_disk / "recordings"
    with serving(folder, engine.url, recording={"folder": str(recordings), "min_free_bytes": 0}) as bastion:
        a_session(bastion)

        # Full in the middle of a session: it is ended, and what its client has seen is in the file.
        client = start(
            bastion.ssh_command(BUSY, "i=0; while :; do echo line $i; i=$((i+1)); done"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        out, errors = client.communicate(timeout=30)
        assert client.returncode == 255
        assert b"This session can no longer be recorded, so it was ended." in errors
        event = bastion.wait_for_event("recording.failed")
        assert "No space left on device (ENOSPC)" in event["detail"]
        assert bastion.wait_for_event("session.end", reason="recording_failed")["status"] == "failed"
        (path,) = [path for path in recordings_in(recordings) if path.stem == event["session_id"]]
        assert recorded(path).startswith(out)
        assert out.startswith(b"line 0\nline 1\n")

        # Full before it.
        filler = fill(small_disk)
        no_session(bastion, "ENOSPC")
        filler.unlink()
        for file in path.parent.glob(f"{path.stem}.*"):
            file.unlink()
        a_session(bastion)

        # Busy while a recording is being written: all are closed.
        wait_until(lambda: mount("-o", "remount,ro", str(small_disk)), "it is read-only")
        no_session(bastion, "EROFS")
        assert mount("-o", "remount,rw", str(small_disk))
        a_session(bastion)

        # Gone: another one is not made in its place, where the disk was mounted.
        away = small_disk / "away"
        recordings.rename(away)
        no_session(bastion, "ENOENT")
        assert not recordings.exists()
        away.rename(recordings)
        a_session(bastion)

        subprocess.run(["umount", "-l", str(small_disk)], check=True)
        no_session(bastion, "ENOENT")
        assert list(small_disk.iterdir()) == []
        recordings.mkdir()  # somebody gives it another disk
        a_session(bastion)
        assert len(recordings_in(recordings)) == 1


def test_a_recording_that_is_removed_while_it_is_written(folder: Path, engine: Engine, start: Start) -> None:
    with serving(folder, engine.url) as bastion:
        client = start(bastion.ssh_command(BUSY, "echo ready; cat"), stderr=subprocess.PIPE)
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        (path,) = bastion.recordings()
        path.unlink()
        out, errors = client.communicate(b"secret", timeout=20)
        assert (out, client.returncode) == (b"", 255)
        assert b"can no longer be recorded" in errors
        assert "The file was deleted" in bastion.wait_for_event("recording.failed")["detail"]
        a_session(bastion)


def test_best_effort_goes_on_and_says_so(folder: Path, engine: Engine, small_disk: Path) -> None:
    recordings = small_disk / "recordings"
    section = {"folder": str(recordings), "mode": "best_effort", "min_free_bytes": 0}
    with serving(folder, engine.url, recording=section) as bastion:
        a_session(bastion)
        filler = fill(small_disk)
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"
        assert "ENOSPC" in bastion.wait_for_event("recording.failed")["detail"]
        filler.unlink()
        a_session(bastion)
        assert len(bastion.events("recording.failed")) == 1


def lines(log: Path) -> list[dict[str, object]]:
    """The whole ones; where the disk became full one may be torn, which is no JSON and has a line of its own."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def test_an_audit_log_on_a_full_disk(folder: Path, engine: Engine, small_disk: Path, start: Start) -> None:
    log = small_disk / "audit.jsonl"
    with serving(folder, engine.url, audit={"file": str(log)}) as bastion:
        a_session(bastion)
        runs = start(bastion.ssh_command(BUSY, "echo ready; cat; echo end"))
        assert runs.stdout is not None
        assert runs.stdout.readline() == b"ready\n"
        session = [entry["session_id"] for entry in lines(log) if entry["event"] == "session.start"][-1]
        filler = fill(small_disk)
        let_in = 2
        while (done := bastion.ssh(BUSY, "echo in")).stdout == b"in\n":
            let_in += 1  # the log's own last page has room
        assert (done.stdout, done.returncode in (1, 255)) == (b"", True)
        said = b"try again" in done.stderr or b"tell the administrators" in done.stderr
        assert said or done.returncode == 255  # the connection itself could not be logged
        out, _ = runs.communicate(b"goes on\n", timeout=20)  # what was logged when it began
        assert (out, runs.returncode) == (b"goes on\nend\n", 0)
        complaint = f"audit.file {log}: the audit log can not be written there: "
        told = [line for line in (folder / "bastion.log").read_text().splitlines() if complaint in line]
        assert len(told) == 1
        assert "No space left on device" in told[0]
        before = lines(log)
        filler.unlink()
        # What could not be refused any more, the end of a session, follows.
        with contextlib.closing(sqlite3.connect(folder / "bastion.db")) as database:
            query = "select count(*) from events where event = 'session.end' and session_id = ?"
            wait_until(lambda: database.execute(query, (session,)).fetchone() == (1,), "its end is in the table")
        wait_until(lambda: bastion.ssh(BUSY, "echo in").stdout == b"in\n", "a login")
        names = [entry["event"] for entry in lines(log)[len(before) :]]
        assert {"audit.recovered", "user.login", "session.start"} <= set(names)
        assert len(lines(log)) >= len(log.read_text().splitlines()) - 1
        started = [entry["session_id"] for entry in lines(log) if entry["event"] == "session.start"]
        assert len(started) >= let_in + 1  # nobody had a session that is not in the log; one may have ended at once


def test_best_effort_goes_on_over_a_log_whose_disk_is_full(folder: Path, engine: Engine, small_disk: Path) -> None:
    log = small_disk / "audit.jsonl"
    complaint = f"audit.file {log}: the audit log can not be written there: "
    with serving(folder, engine.url, audit={"file": str(log), "mode": "best_effort"}) as bastion:
        a_session(bastion)
        filler, sessions = fill(small_disk), 1
        while complaint not in (folder / "bastion.log").read_text():
            a_session(bastion)  # the log's own last page has room
            sessions += 1
        for _ in range(3):
            a_session(bastion)
            sessions += 1
        before = len(lines(log))
        filler.unlink()
        wait_until(lambda: [entry for entry in lines(log) if entry["event"] == "audit.recovered"], "the log says so")
        (told,) = [entry for entry in lines(log) if entry["event"] == "audit.recovered"]
        assert (told["sink"], told["dropped"]) == (f"audit.file {log}", 0)
        wait_until(lambda: len(sessions_in(log, "session.end")) == sessions, "and what happened meanwhile follows")
        assert len(sessions_in(log, "session.start")) == sessions
        assert len(lines(log)) > before + 3 * 4


def sessions_in(log: Path, event: str) -> list[object]:
    return [entry["session_id"] for entry in lines(log) if entry["event"] == event]


def test_a_database_on_a_full_disk(folder: Path, engine: Engine, small_disk: Path, start: Start) -> None:
    assert mount("-o", "remount,size=2m", str(small_disk))
    file = small_disk / "bastion.db"

    def stored() -> list[str]:
        """The copy of the audit log that the table is."""
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return [entry for (entry,) in database.execute("select entry from events order by position")]

    with serving(folder, engine.url, database={"url": f"sqlite+aiosqlite:///{file}"}) as bastion:
        runs = start(bastion.ssh_command(BUSY, "echo ready; cat; echo end"))
        assert runs.stdout is not None
        assert runs.stdout.readline() == b"ready\n"
        session = bastion.wait_for_event("session.start")["session_id"]
        filler = fill(small_disk)
        done = a_refusal(bastion)
        assert b"so no session can begin" in done.stderr
        assert str(small_disk).encode() not in done.stderr
        bastion.wait_for_event("access.denied", reason="audit_unavailable")
        assert "is full" in bastion.wait_for_event("audit.failed", sink="database events")["reason"]
        out, _ = runs.communicate(b"goes on\n", timeout=20)  # what was begun goes on, and ends as ever
        assert (out, runs.returncode) == (b"goes on\nend\n", 0)
        bastion.wait_for_event("session.end", session_id=session)
        assert len(stored()) < len(bastion.events())
        bastion.kill()  # what waits for the database is not lost even so
        filler.unlink()
    with serving(folder, engine.url, database={"url": f"sqlite+aiosqlite:///{file}"}) as bastion:
        a_session(bastion)
        log = folder / "audit.jsonl"
        wait_until(lambda: stored() == log.read_text().splitlines(), "the table is the file's copy")


def a_refusal(bastion: Bastion) -> "subprocess.CompletedProcess[bytes]":
    """The first session that does not begin: the database's own last pages have room."""
    while (done := bastion.ssh(BUSY, "echo in")).stdout == b"in\n":
        pass
    assert (done.stdout, done.returncode) == (b"", 1)
    return done


# Configurations.

RIGHT = """\
auth:
  local: {file: users.yaml}
engines:
- {name: test, url: "unix:///nowhere.sock"}
"""


def missing_key(folder: Path) -> str:
    (folder / "keys/ssh_host_rsa_key").unlink()
    return RIGHT + "ssh:\n  host_keys:\n  - keys/ssh_host_ed25519_key\n  - keys/ssh_host_rsa_key\n"


def readable_key(folder: Path) -> str:
    (folder / "keys/ssh_host_ed25519_key").chmod(0o644)
    return RIGHT


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "a tab": (
        lambda _: RIGHT + "ssh:\n\tbanner: x\n",
        "{config}:6: found a tab in the indentation; spaces are right",
    ),
    "a key twice": (
        lambda _: RIGHT + "auth:\n  local: {}\n",
        "{config}:5: auth: found a second time; once is right (the first is on line 1)",
    ),
    "a missing host key": (
        missing_key,
        "{config}:8: ssh.host_keys[1]: {keys}/ssh_host_rsa_key does not exist; make it with: bastion keys init",
    ),
    "a host key that others can read": (
        readable_key,
        "{config}:1: ssh.host_keys[0]: {keys}/ssh_host_ed25519_key has mode 0644: others can read it; "
        "mend it with: chmod 600 {keys}/ssh_host_ed25519_key",
    ),
    "a missing certificate": (
        lambda _: RIGHT.replace("auth:", "auth:\n  ldap: {servers: ['ldaps://x'], ca_file: ca.pem, search_base: x}"),
        "{config}:2: auth.ldap.ca_file: found 'ca.pem'; "
        "a file that can be read is right ({folder}/ca.pem: No such file or directory)",
    ),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_stops_the_start(folder: Path, wrong: Callable[[Path], str], said: str) -> None:
    config = folder / "config.yaml"
    config.write_text(wrong(folder))
    done = subprocess.run(
        [*BASTION, "serve", "-c", str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.splitlines() == [said.format(config=config, keys=folder / "keys", folder=folder)]
    assert (done.returncode, done.stdout) == (1, "")
    assert not (folder / "audit.jsonl").exists()  # nothing has begun
