"""The sides: the bastion, OpenSSH's sshd with ForceCommand docker exec, and docker exec without any SSH."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.servers.bastion import Bastion, serving
from tests.servers.engine import DEBIAN, Engine
from tests.servers.process import accepts, free_port, running, wait_until

TICKS = os.sysconf("SC_CLK_TCK")


class Side(Protocol):
    """`command` is what a user types; with `terminal` on a terminal, without words a shell."""

    name: str

    def command(self, words: str | None, *, terminal: bool) -> list[str]: ...


class SshSide(Side, Protocol):
    port: int
    user: str
    key: Path

    def cpu_seconds(self) -> float:
        """Spent by the server and, where it has ended, by all that it has started."""

    def memory(self) -> int:
        """Proportional set size in bytes of the server and all that it has started (proc(5), smaps_rollup)."""


def ssh(port: int, user: str, key: Path, folder: Path, words: str | None, *, terminal: bool) -> list[str]:
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR", "StrictHostKeyChecking=accept-new"]
    command = ["ssh", "-F", "none", "-p", str(port), "-i", str(key), "-o", f"UserKnownHostsFile={folder}/bench_hosts"]
    for option in options:
        command += ["-o", option]
    return [*command, "-tt" if terminal else "-T", f"{user}@127.0.0.1", *([words] if words else [])]


class DockerExec:
    name = "docker exec"

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine, self._container = engine, container

    def command(self, words: str | None, *, terminal: bool) -> list[str]:
        shell = ["sh", "-c", words] if words else ["bash"]
        return ["docker", "-H", self._engine.url, "exec", "-it" if terminal else "-i", self._container, *shell]


class BastionSide:
    def __init__(self, bastion: Bastion, name: str = "bastion") -> None:
        self._bastion = bastion
        self.name = name
        self.port, self.user, self.key = bastion.port, "alice+bench.main.1", bastion.folder / "alice_key"

    def command(self, words: str | None, *, terminal: bool) -> list[str]:
        return ssh(self.port, self.user, self.key, self._bastion.folder, words, terminal=terminal)

    def cpu_seconds(self) -> float:
        return _cpu_seconds(self._bastion.process.pid)

    def memory(self) -> int:
        return _memory(self._bastion.process.pid)


class Sshd:
    name = "sshd"

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], port: int, key: Path) -> None:
        self._folder, self._process = folder, process
        self.port, self.user, self.key = port, "root", key

    def command(self, words: str | None, *, terminal: bool) -> list[str]:
        return ssh(self.port, self.user, self.key, self._folder, words, terminal=terminal)

    def cpu_seconds(self) -> float:
        return _cpu_seconds(self._process.pid)

    def memory(self) -> int:
        return _memory(self._process.pid)


@contextlib.contextmanager
def all_sides(folder: Path, engine: Engine) -> Iterator[tuple[BastionSide, Sshd, DockerExec]]:
    container = engine.app("bench", "main", 1, image=DEBIAN)
    limits = {"max_startups": {"start": 1000, "rate": 30, "full": 2000}}
    with serving(folder, engine.url, ssh=limits) as bastion:
        side = BastionSide(bastion)
        with sshd(folder, engine, str(container.name), side.key) as other:
            yield side, other, DockerExec(engine, str(container.name))


@contextlib.contextmanager
def sshd(folder: Path, engine: Engine, container: str, key: Path) -> Iterator[Sshd]:
    """Debian's sshd, as its package sets it up, but for the forced command and the limits on connections."""
    force = folder / "force"
    force.write_text(
        "#!/bin/sh\n"
        "if [ -t 0 ]; then flags=-it; else flags=-i; fi\n"
        f'if [ -z "$SSH_ORIGINAL_COMMAND" ]; then exec docker -H {engine.url} exec "$flags" {container} bash; fi\n'
        f'exec docker -H {engine.url} exec "$flags" {container} sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    force.chmod(0o755)
    port = free_port()
    shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")
    configuration = folder / "sshd_config"
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/keys/ssh_host_ed25519_key\nPidFile {folder}/sshd.pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n"
        f"MaxStartups 1000:30:2000\nForceCommand {force}\nPrintMotd no\nX11Forwarding yes\nAcceptEnv LANG LC_*\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with running(["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)], folder / "sshd.log") as process:
        wait_until(lambda: accepts(port), "sshd listens")
        yield Sshd(folder, process, port, key)


def descendants(pid: int) -> list[int]:
    """`pid` and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS  # utime, stime, and those of children waited for


def _memory(pid: int) -> int:
    total = 0
    for process in descendants(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def settle(side: SshSide) -> float:
    """CPU seconds once the server has come to rest."""
    before = -1.0
    while (now := side.cpu_seconds()) != before:
        before = now
        time.sleep(0.3)
    return now
