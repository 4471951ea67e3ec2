"""The bastion itself, as its users meet it: a process of its own, and stock clients in front of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.recordings import recordings
from tests.servers.process import accepts, free_port, running, wait_until

BASTION = [sys.executable, "-m", "bastion"]
PASSWORD = "correct horse"


@dataclass
class Bastion:
    """A running `bastion serve`, with the local users alice and bob (and their keys) in it."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    command: list[str]

    def ssh_command(self, login: str, *words: str, options: tuple[str, ...] = (), key: str | None = None) -> list[str]:
        """A stock ssh to `login`; the key of the user before the `+` unless `key` names another's."""
        user = key or login.partition("+")[0]
        return [
            "ssh",
            "-F",
            "none",
            "-p",
            str(self.port),
            "-i",
            str(self.folder / f"{user}_key"),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            f"UserKnownHostsFile={self.folder}/known_hosts",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "LogLevel=ERROR",
            *options,
            f"{login}@127.0.0.1",
            *words,
        ]

    def ssh(
        self,
        login: str,
        *words: str,
        options: tuple[str, ...] = (),
        stdin: bytes = b"",
        timeout: float = 30,
        key: str | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.ssh_command(login, *words, options=options, key=key),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def with_password(self, password: str, command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a client that asks for a password on its terminal."""
        env = {**os.environ, "SSHPASS": password}
        return subprocess.run(
            ["sshpass", "-e", *command],
            capture_output=True,
            timeout=kwargs.pop("timeout", 30),
            env=env,
            check=False,
            **kwargs,
        )

    def events(self, name: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """What the audit log's file holds, oldest first, of that name and with these fields."""
        *lines, _ = (self.folder / "audit.jsonl").read_text().split("\n")  # the last may be half a line, as yet
        events = [json.loads(line) for line in lines]
        return [e for e in events if name in (None, e["event"]) and all(e.get(k) == v for k, v in fields.items())]

    def wait_for_event(self, name: str, seconds: float = 20, **fields: object) -> dict[str, Any]:
        wait_until(lambda: self.events(name, **fields), f"{name} {fields} in the audit log", seconds)
        return self.events(name, **fields)[-1]

    def recordings(self) -> list[Path]:
        return recordings(self.folder / "recordings")

    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """As a crash would: nothing is closed."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def make_folder(folder: Path) -> None:
    """Host keys, two users with a password and a key each."""
    for name in ("ssh_host_ed25519_key", "ssh_host_rsa_key"):
        (folder / "keys").mkdir(exist_ok=True)
        kind = ["-t", "ed25519"] if "ed25519" in name else ["-t", "rsa", "-b", "3072"]
        subprocess.run(["ssh-keygen", "-q", "-N", "", *kind, "-f", str(folder / "keys" / name)], check=True)
    for user in ("alice", "bob"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(folder / f"{user}_key")], check=True)
        subprocess.run(
            [
                *BASTION,
                "users",
                "add",
                user,
                "--password-stdin",
                "--authorized-keys",
                f"{folder}/{user}_key.pub",
                "-c",
                f"{folder}/config.yaml",
            ],
            input=PASSWORD.encode(),
            check=True,
        )


def configuration(engine_url: str, port: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest one, with `changes` laid over its sections."""
    made: dict[str, Any] = {
        # Many tests sign in wrongly, all from here; what is done about that is tested from other addresses of loopback.
        "ssh": {"listen": [f"127.0.0.1:{port}"], "penalties": {"exempt": ["127.0.0.1/32"]}},
        "auth": {"local": {"file": "users.yaml"}},
        "engines": [{"name": "test", "url": engine_url}],
    }
    for section, values in changes.items():
        if isinstance(values, Mapping):
            made[section] = {**made.get(section, {}), **values}
        else:
            made[section] = values
    return made


@contextlib.contextmanager
def serving(
    folder: Path, engine_url: str, port: int | None = None, program: Sequence[str] = BASTION, **changes: Any
) -> Iterator[Bastion]:
    """`bastion serve` in `folder`, which keeps its keys, users and files from one start to the next."""
    port = port or free_port()
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration(engine_url, port, changes)))
    if not (folder / "keys").exists():
        make_folder(folder)
    command = [*program, "serve", "-c", f"{folder}/config.yaml"]
    log = folder / "bastion.log"
    with running(command, log, cwd=folder) as process:
        wait_until(lambda: accepts(port) or process.poll() is not None, "the bastion listens")
        assert process.poll() is None, log.read_text()
        yield Bastion(port, folder, process, command)
    traceback = log.read_text()
    assert "Traceback" not in traceback, traceback
    assert "was never retrieved" not in traceback, traceback
