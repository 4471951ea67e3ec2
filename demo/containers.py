"""The demo's containers: two of alice's app `web`, one that Compose could have started, and one of bob's."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import requests
from docker.errors import DockerException, NotFound

from demo.images import busybox_tar, import_tree
from demo.processes import mark_of
from demo.terminal import Problem, step

LABEL = "bastion.demo"  # its value is the demo's folder
# A shell, because the first process of a container has to reap the others.
COMMAND = ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"]


def _bastion(app: str, proc: str, instance: int, owner: str) -> dict[str, str]:
    return {
        "bastion.app": app,
        "bastion.proc": proc,
        "bastion.instance": str(instance),
        "bastion.owners": owner,
    }


CONTAINERS = {
    "web.worker.1": _bastion("web", "worker", 1, "alice"),
    "web.worker.2": _bastion("web", "worker", 2, "alice"),
    "shop.front.1": {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "front",
        "com.docker.compose.container-number": "1",
        "bastion.owners": "alice",
    },
    "vault.db.1": _bastion("vault", "db", 1, "bob"),
}


def start(client: docker.DockerClient, run: Path) -> None:
    """Make the image and start the containers. Raises `Problem`."""
    with _engine_trouble():
        others = {
            found["Labels"][LABEL]
            for found in client.api.containers(all=True, filters={"label": LABEL})
            if found["Labels"][LABEL] != str(run)
        }
        if others:
            raise Problem(
                f"This engine already has the containers of another demo, in {', '.join(sorted(others))}: "
                f"run make demo-down there, or: docker rm -f $(docker ps -aqf label={LABEL})"
            )
        with step("Making the image"):
            image = import_tree(client, busybox_tar(bash=True), mark_of(run))
        with step(f"Starting {', '.join(CONTAINERS)}"):
            for name, labels in CONTAINERS.items():
                client.containers.run(
                    image,
                    COMMAND,
                    detach=True,
                    name=f"bastion-demo-{name}",
                    hostname=name.replace(".", "-"),
                    labels={**labels, LABEL: str(run)},
                    network_mode="none",
                )


def remove(client: docker.DockerClient, run: Path) -> None:
    """Remove the containers of `run` and the image; what is not there is no problem."""
    with _engine_trouble():
        for found in client.api.containers(all=True, filters={"label": f"{LABEL}={run}"}):
            with contextlib.suppress(NotFound):
                client.api.remove_container(found["Id"], force=True, v=True)
        with contextlib.suppress(NotFound):
            client.images.remove(mark_of(run), force=True)


@contextlib.contextmanager
def _engine_trouble() -> Iterator[None]:
    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise Problem(f"The Docker engine says: {error}") from error
