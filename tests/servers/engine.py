"""A Docker engine of the tests' own, and containers in it."""

import contextlib
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.models.containers import Container

from demo.images import busybox_tar, import_tree
from tests.servers.cache import made_once
from tests.servers.process import accepts_unix, running, wait_until

BUSYBOX = "bastion-test/busybox:1"  # busybox only: sh, no bash
NO_SHELL = "bastion-test/noshell:1"  # /bin/sleep and nothing else
DEBIAN = "bastion-test/debian:1"  # bash, vim, procps, sudo
_numbers = itertools.count(1)


def debian_tar() -> Path:
    """A Debian tree with bash, vim, procps and sudo, made by debootstrap once (half a minute) and cached."""
    return made_once("debian-2.tar", _make_tar)


def _make_tar(tar: Path) -> None:
    with debian_tree(tar, "bookworm", "vim-tiny,procps,sudo,less") as tree:
        (tree / "etc/sudoers.d/anyone").write_text("ALL ALL=(ALL) NOPASSWD: ALL\n")


@contextlib.contextmanager
def debian_tree(tar: Path, release: str, packages: str) -> Iterator[Path]:
    """A root file system by debootstrap; as the caller leaves it, it is packed, without what no container needs."""
    with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
        tree = Path(folder, "tree")
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", release, str(tree)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield tree
        unused = ("dev", "var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
        left_out = [f"--exclude=./{folder}/*" for folder in unused]
        subprocess.run(["tar", "-C", str(tree), *left_out, "-cf", str(tar), "."], check=True)


@dataclass
class Engine:
    """A running dockerd; `url` is its unix socket."""

    url: str
    folder: Path
    client: docker.DockerClient
    process: subprocess.Popen[bytes]
    started: list[Container] = field(default_factory=list)

    def run(
        self,
        image: str = BUSYBOX,
        *,
        name: str | None = None,
        labels: dict[str, str] | None = None,
        command: str = "sleep 1000000",
        **kwargs: object,
    ) -> Container:
        """A running container; `sleep` ends at once on SIGKILL, and nothing waits for its grace period."""
        container = self.client.containers.run(
            image,
            command,
            detach=True,
            name=name or f"test-{os.getpid()}-{next(_numbers)}",
            labels=labels or {},
            network_mode="none",
            stop_signal="SIGKILL",
            **kwargs,
        )
        self.started.append(container)
        return container

    def app(
        self,
        app: str,
        proc: str = "worker",
        instance: int = 1,
        *,
        owners: str = "alice",
        image: str = BUSYBOX,
        **kwargs: object,
    ) -> Container:
        """A running container labelled `bastion.*`."""
        labels = {
            "bastion.app": app,
            "bastion.proc": proc,
            "bastion.instance": str(instance),
            "bastion.owners": owners,
        }
        labels |= kwargs.pop("labels", {})  # type: ignore[arg-type]
        return self.run(image, labels=labels, **kwargs)

    def processes(self, container: Container) -> list[str]:
        """The command lines of what runs in `container` (ContainerTop), its main process among them."""
        return [row[-1] for row in container.top(ps_args="-eo pid,args")["Processes"]]


def dockerd_command(folder: Path) -> list[str]:
    """A dockerd that answers at `folder`/docker.sock, without any network: it never touches the machine's own."""
    return [
        "dockerd",
        "--data-root",
        f"{folder}/data",
        "--exec-root",
        f"{folder}/exec",
        "-H",
        f"unix://{folder}/docker.sock",
        "--pidfile",
        f"{folder}/pid",
        "--bridge=none",
        "--iptables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]


@contextlib.contextmanager
def dockerd(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command above, and running."""
    assert os.geteuid() == 0, "the tests start a Docker engine of their own, which needs root: sudo make test"
    socket = folder / "docker.sock"
    with running(dockerd_command(folder), folder / "dockerd.log") as process:
        wait_until(lambda: accepts_unix(socket) or process.poll() is not None, "dockerd answers")
        yield process


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[Engine]:
    """A dockerd with the images of the tests; takes about a second."""
    url = f"unix://{folder}/docker.sock"
    with dockerd(folder) as process:
        client = docker.DockerClient(base_url=url, timeout=60)
        try:
            client.ping()
            import_tree(client, busybox_tar(), BUSYBOX)
            import_tree(client, busybox_tar(("sleep",)), NO_SHELL)
            import_tree(client, debian_tar(), DEBIAN)
            engine = Engine(url, folder, client, process)
            yield engine
            for container in engine.started:
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True)
        finally:
            client.close()
