"""Where a running bastion's log goes: a file that is rotated, and Debian's rsyslog over UDP, TCP and a unix socket."""

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import accepts, free_port, running, wait_until

BUSY = "alice+web.busy.1"


def ids(*files: Path) -> list[str]:
    return [json.loads(line)["id"] for file in files for line in file.read_text().splitlines()]


def test_the_file_is_rotated_and_every_event_is_in_one_of_them(
    bastion: Bastion, folder: Path, engine: Engine, start: Start
) -> None:
    """As logrotate does, without copytruncate: move it, SIGHUP, and compress it at once."""
    with serving(folder, engine.url) as own:
        file, moved = folder / "audit.jsonl", []
        client = start(own.ssh_command(BUSY, "cat"))
        own.wait_for_event("session.start")
        for number in range(1, 4):
            assert own.ssh(BUSY, f"echo {number}").returncode == 0
            moved.append(file.rename(folder / f"audit.jsonl.{number}"))
            os.kill(own.process.pid, signal.SIGHUP)
            wait_until(file.exists, "the file is there again")
            size = moved[-1].stat().st_size
            assert own.ssh(BUSY, f"echo {number} again").returncode == 0
            assert moved[-1].stat().st_size == size, "the old one is not written any more"
            links = [path.readlink() for path in Path(f"/proc/{own.process.pid}/fd").iterdir() if path.is_symlink()]
            assert moved[-1] not in links
        assert client.communicate(b"still here", timeout=20)[0] == b"still here"
        events = own.events("audit.reopened")
        assert len(events) == 1
        everything = [*moved, file]

        def in_table() -> list[str]:
            with contextlib.closing(sqlite3.connect(f"file:{folder}/bastion.db?mode=ro", uri=True)) as database:
                return [row[0] for row in database.execute("SELECT id FROM events ORDER BY position")]

        wait_until(lambda: in_table() == ids(*everything), "the table has what the files have")


def test_the_bastion_rotates_by_itself(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url, audit={"rotate_bytes": 2000}) as own:
        assert own.ssh(BUSY, "true").returncode == 0
        wait_until(lambda: list(folder.glob("audit.jsonl-*Z")), "it is moved", 30)
        assert own.ssh(BUSY, "true").returncode == 0
        moved, *_ = folder.glob("audit.jsonl-*Z")
        assert ids(moved)
        assert set(ids(moved)).isdisjoint(ids(folder / "audit.jsonl"))


@pytest.fixture(scope="session")
def rsyslog(servers_folder: Path) -> Iterator[tuple[Path, int]]:
    """Its folder, with `received` in it and the socket `log`, and its port for UDP and TCP."""
    folder, port = servers_folder / "rsyslog", free_port()
    folder.mkdir()
    (folder / "rsyslog.conf").write_text(
        f"""
        global(workDirectory="{folder}" maxMessageSize="256k")
        module(load="imudp") module(load="imtcp")
        module(load="imuxsock" sysSock.use="off")
        input(type="imuxsock" socket="{folder}/log" useSpecialParser="off" parseHostname="on")
        input(type="imudp" address="127.0.0.1" port="{port}")
        input(type="imtcp" address="127.0.0.1" port="{port}")
        template(name="all" type="string" string="%inputname% %pri-text% %hostname% %app-name% %msgid% %msg%\\n")
        action(type="omfile" file="{folder}/received" template="all")
        """
    )
    command = ["/usr/sbin/rsyslogd", "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    with running(command, folder / "log.txt") as process:
        wait_until(lambda: accepts(port) or process.poll() is not None, "rsyslog listens")
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield folder, port


@pytest.mark.parametrize("how", ["udp", "tcp", "unix"])
def test_rsyslog_has_every_event(folder: Path, engine: Engine, rsyslog: tuple[Path, int], how: str) -> None:
    where, port = rsyslog
    url = f"unix://{where}/log" if how == "unix" else f"{how}://127.0.0.1:{port}"
    source = {"udp": "imudp", "tcp": "imtcp", "unix": "imuxsock"}[how]
    with serving(folder, engine.url, bastion_id="here", audit={"syslog": {"url": url}}) as own:
        assert own.ssh(BUSY, "echo 'gr\u00fc\u00dfe \x1b[2J'").returncode == 0
        assert own.ssh("alice+vault.db.1", "true").returncode == 1
        own.wait_for_event("access.denied")
        wait_until(lambda: len(own.events("connection.close", user="alice")) == 2, "both are closed")
        expected = [f"{event['event']} {json.dumps(event)}" for event in own.events()]

        def received() -> list[str]:
            lines = (where / "received").read_text().splitlines() if (where / "received").exists() else []
            ours = [line for line in lines if line.startswith(f"{source} ")]
            assert all(" here bastion " in line for line in ours)
            return [line.partition(" here bastion ")[2] for line in ours]

        wait_until(lambda: received()[: len(expected)] == expected, f"rsyslog has it: {received()} {expected}")
        (denied,) = [line for line in (where / "received").read_text().splitlines()
                     if line.startswith(source) and " access.denied " in line]  # fmt: skip
        assert denied.startswith(f"{source} authpriv.warning ")
