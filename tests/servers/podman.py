"""Podman's service on a socket of the tests' own: the same calls as Docker's engine, answered a little differently."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker

from demo.images import busybox_tar, import_tree
from tests.servers.engine import BUSYBOX, NO_SHELL, Engine
from tests.servers.process import accepts_unix, running, wait_until

BASH = "bastion-test/bash:1"

# Podman wants to raise the limits of a container to the machine's, which not every root may.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""


@contextlib.contextmanager
def podman_engine(folder: Path) -> Iterator[Engine]:
    """As `docker_engine`, with the images BUSYBOX, NO_SHELL and BASH."""
    (folder / "containers.conf").write_text(CONFIGURATION)
    # Nothing from this machine's own configuration: it may want systemd's cgroups, journald, or another storage.
    options = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp"]
    options += ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=file"]
    environment = os.environ | {"CONTAINERS_CONF": f"{folder}/containers.conf"}
    socket = folder / "podman.sock"
    command = ["podman", *options, "system", "service", "--time=0", f"unix://{socket}"]
    with running(command, folder / "podman.log", env=environment) as process:
        wait_until(lambda: accepts_unix(socket) or process.poll() is not None, "Podman answers")
        assert process.poll() is None, (folder / "podman.log").read_text()
        client = docker.DockerClient(base_url=f"unix://{socket}", timeout=60)
        try:
            import_tree(client, busybox_tar(), BUSYBOX)
            import_tree(client, busybox_tar(("sleep",)), NO_SHELL)
            import_tree(client, busybox_tar(bash=True), BASH)
            yield Engine(f"unix://{socket}", folder, client, process)
        finally:
            client.close()
            remove = ["podman", *options, "rm", "--all", "--force", "--time=0"]
            subprocess.run(remove, env=environment, capture_output=True, check=False)
    shutil.rmtree(folder / "root", ignore_errors=True)
