"""Docker 26 (API 1.45), from the next Debian, in a container of Debian 12's Docker 20.10 (API 1.41)."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import docker

from demo.images import busybox_tar, import_tree
from tests.servers.cache import made_once
from tests.servers.engine import BUSYBOX, Engine, debian_tree, dockerd_command
from tests.servers.machine import start_machine
from tests.servers.process import accepts_unix, wait_until

IMAGE = "bastion-test/docker-26:1"


def docker_26_tar() -> Path:
    """A Debian tree with Docker 26, made by debootstrap once (a minute) and cached."""

    def make(tar: Path) -> None:
        with debian_tree(tar, "trixie", "docker.io,iptables,procps"):
            pass  # as it is

    return made_once("docker-26.tar", make)


@contextlib.contextmanager
def newer_docker_engine(folder: Path, around: Engine) -> Iterator[Engine]:
    """As `docker_engine`, in a container of `around`, with the image BUSYBOX; takes about six seconds."""
    import_tree(around.client, docker_26_tar(), IMAGE)
    volumes = {str(folder): {"bind": str(folder), "mode": "rw"}}
    container = start_machine(around, IMAGE, shlex.join(dockerd_command(folder)), volumes=volumes)
    try:
        wait_until(lambda: accepts_unix(folder / "docker.sock"), "Docker 26 answers")
        url = f"unix://{folder}/docker.sock"
        with contextlib.closing(docker.DockerClient(base_url=url, timeout=60)) as client:
            import_tree(client, busybox_tar(), BUSYBOX)
            yield Engine(url, folder, client, around.process)
    finally:
        container.remove(force=True)
