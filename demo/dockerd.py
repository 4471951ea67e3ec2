"""A Docker engine of the demo's own, without any network, so that it never touches the machine's.

Starting and stopping it needs root: `[sudo] python -m demo.dockerd start|stop RUN GID`.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from demo import processes
from demo.terminal import Problem, complain

PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # a Debian user's PATH has no dockerd
LEFTOVERS = (Path("/etc/docker/key.json"), Path("/run/docker"), Path("/run/containerd"))


class Dockerd:
    """The engine that belongs to `run`, the demo's folder; what there is of it is found by `run` alone."""

    def __init__(self, run: Path) -> None:
        self.mark = processes.mark_of(run)
        self.run = run
        self.data = run / "engine"
        # A unix socket's path has at most 107 bytes, and containerd's are deep below this folder.
        self.exec_root = Path("/run", self.mark)
        self.socket = self.exec_root / "docker.sock"
        self.url = f"unix://{self.socket}"

    def exists(self) -> bool:
        """Was it started (and not stopped)? Needs no root."""
        return self.exec_root.exists()

    def start(self, group: int) -> None:
        """Start it, and return when it answers members of `group` (a gid). Raises `Problem` with its last words."""
        self.exec_root.mkdir(mode=0o711)
        self.data.mkdir(exist_ok=True, mode=0o711)
        log = self.run / "dockerd.log"
        # dockerd makes these wherever its folders are; what was not there is removed with it.
        new = [str(path) for path in LEFTOVERS if not path.exists()]
        (self.exec_root / "leftovers").write_text("\n".join(new))
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["dockerd", "--config-file", str(self._configuration(group))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=processes.environment(self.mark) | {"PATH": PATH},
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                words = "".join(f"  {line}\n" for line in log.read_text(errors="replace").splitlines()[-8:])
                raise Problem(
                    f"The Docker engine did not start. Its last words:\n{words}"
                    "It needs a machine on which root may mount (not an unprivileged container). "
                    "Another engine will do: set DOCKER_HOST."
                )
            time.sleep(0.05)
        process.returncode = 0  # it outlives this process, which never waits for it

    def stop(self) -> None:
        """Stop it and remove what it left, whatever state it is in. Raises `Problem` if a process stays."""
        processes.end(self.mark, signal.SIGTERM, 15, name="dockerd")
        # Nothing is left of an engine that ended well; one that was killed leaves containerd and the containers.
        if not processes.end(self.mark, signal.SIGKILL, 15):
            raise Problem(f"These processes do not end: {processes.find(self.mark)}")
        for mount in reversed(_mounts_below(self.exec_root, self.data)):
            subprocess.run(["umount", "--lazy", mount], check=False, env=os.environ | {"PATH": PATH})
        for cgroup in [*Path("/sys/fs/cgroup").glob(self.mark), *Path("/sys/fs/cgroup").glob(f"*/{self.mark}")]:
            _remove_cgroup(cgroup)
        shutil.rmtree(self.data, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            for line in (self.exec_root / "leftovers").read_text().split():
                _remove_unused(Path(line))
        shutil.rmtree(self.exec_root, ignore_errors=True)

    def _configuration(self, group: int) -> Path:
        """A file, so that the machine's own /etc/docker/daemon.json has no say."""
        file = self.exec_root / "daemon.json"
        file.write_text(
            json.dumps(
                {
                    "data-root": str(self.data),
                    "exec-root": str(self.exec_root),
                    "pidfile": str(self.exec_root / "pid"),
                    "hosts": [self.url],
                    "group": str(group),
                    "bridge": "none",
                    "iptables": False,
                    "ip6tables": False,
                    "ip-forward": False,
                    "ip-masq": False,
                    # By these, processes in containers are found again after a crash, without systemd too.
                    "exec-opts": ["native.cgroupdriver=cgroupfs"],
                    "cgroup-parent": f"/{self.mark}",
                    "shutdown-timeout": 2,  # seconds for containers to end by themselves
                }
            )
        )
        return file

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(self.socket))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in probe.recv(64)
        return False


def _mounts_below(*folders: Path) -> list[str]:
    """Mount points at or below `folders`, in the order of mounting (proc(5), mountinfo)."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4])  # a blank is \\040
        if any(Path(point).is_relative_to(folder) for folder in folders):
            points.append(point)
    return points


def _remove_cgroup(top: Path) -> None:
    with contextlib.suppress(OSError):  # the kernel says no while it holds a process
        for folder, _, _ in os.walk(top, topdown=False):
            Path(folder).rmdir()


def _remove_unused(path: Path) -> None:
    """Remove `path` unless somebody else has come to use it meanwhile."""
    if path.is_dir():
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
    else:
        path.unlink(missing_ok=True)


def main() -> int:
    command, run, group = sys.argv[1:]
    engine = Dockerd(Path(run))
    try:
        if command == "start":
            engine.start(int(group))
        else:
            engine.stop()
    except (Problem, OSError) as problem:
        complain(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
