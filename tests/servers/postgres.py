"""A PostgreSQL of the tests' own, made by initdb, on a free port and a unix socket, in a temporary folder."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg

from tests.servers.process import free_port, running, wait_until

PASSWORD = "correct horse"  # of the superuser `postgres`, over TCP
_OPTIONS = ("fsync=off", "log_min_messages=fatal", "listen_addresses=127.0.0.1")


def _program(name: str) -> str:
    """initdb and postgres are not on Debian's PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name) or name


def _user() -> dict[str, object]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Postgres:
    """A cluster that can be started, stopped, killed and frozen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if user := _user():
            for path in (self.folder, password):
                os.chown(path, int(str(user["user"])), int(str(user["group"])))
        initdb = [_program("initdb"), "-D", f"{self.folder}/data", "-U", "postgres", "--no-sync", "--no-locale"]
        initdb += ["-E", "UTF8", "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **_user())  # type: ignore[call-overload]

    def start(self) -> None:
        command = [_program("postgres"), "-D", f"{self.folder}/data", "-k", str(self.folder), "-p", str(self.port)]
        command += [part for option in _OPTIONS for part in ("-c", option)]
        log = self.folder / "postgres.log"
        self._process = self._running.enter_context(running(command, log, cwd=self.folder, **_user()))
        wait_until(self._answers, "PostgreSQL answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "postgres.log").read_text()
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def stop(self) -> None:
        self.signal(signal.SIGINT)  # fast shutdown: does not wait for clients
        self._running.close()

    def kill(self) -> None:
        """As kill -9 of all its processes."""
        self.signal(signal.SIGKILL)
        self._running.close()

    def signal(self, number: int) -> None:
        """To all its processes: each backend leads a process group of its own."""
        assert self._process is not None
        if number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for child in map(int, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)
        with contextlib.suppress(ProcessLookupError):  # a test has killed it
            os.kill(self._process.pid, number)

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection:
        """Over the unix socket, which trusts everybody."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, dbname=database, user=user, autocommit=True, connect_timeout=5
        )

    def create_database(self) -> str:
        """The name of a database that is new and empty."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str, user: str = "postgres") -> str:
        """For `database.url`, over the unix socket."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str, user: str = "postgres", password: str = "correct%20horse") -> str:
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def postgres_server(disk: str | None = None) -> Iterator[Postgres]:
    """A running PostgreSQL; takes about two seconds. `disk`: the size of a file system of its own, as mount has it."""
    folder = Path(tempfile.mkdtemp(prefix="bt-pg-"))
    server = Postgres(folder)
    try:
        if disk is not None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk},mode=755", "tmpfs", str(folder)], check=True)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        if disk is not None:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
