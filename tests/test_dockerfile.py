"""The image: built by the tests' own engine on a Debian base, and run."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.servers.engine import Engine
from tests.servers.image import ROOT, bastion_image
from tests.servers.process import wait_until


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    return bastion_image(engine)


pytestmark = pytest.mark.timeout(900)  # the first build on a machine fetches some 100 MB


def run(engine: Engine, image: str, *command: str, **kwargs: Any) -> str:
    """What the command prints; fails with it where it fails."""
    try:
        output: bytes = engine.client.containers.run(
            image, list(command), network_mode="none", remove=True, stderr=True, **kwargs
        )
    except docker.errors.ContainerError as error:
        raise AssertionError(error.stderr.decode()) from None
    return output.decode()


@pytest.fixture
def volume(engine: Engine) -> Iterator[dict[str, dict[str, str]]]:
    """A named volume for /etc/bastion, as the Dockerfile's head shows it."""
    made = engine.client.volumes.create()
    yield {made.name: {"bind": "/etc/bastion", "mode": "rw"}}
    made.remove(force=True)


def test_the_image_says_what_it_needs(engine: Engine, image: str) -> None:
    config = engine.client.images.get(image).attrs["Config"]
    assert config["User"] == "bastion"
    assert config["Entrypoint"] == ["bastion"]
    assert set(config["ExposedPorts"]) == {"2222/tcp"}
    assert set(config["Volumes"]) == {"/etc/bastion", "/var/lib/bastion", "/var/log/bastion"}
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_the_base_is_debian_unless_another_is_named() -> None:
    assert "ARG BASE=debian:bookworm-slim\n" in (ROOT / "Dockerfile").read_text()


def test_it_runs_as_nobody_special(engine: Engine, image: str) -> None:
    assert run(engine, image, "--version") == f"bastion {importlib.metadata.version('bastion')}\n"
    assert run(engine, image, "-u", entrypoint="id").strip() == "2222"
    assert "No module named pip" in run(engine, image, "-c", "python -m pip || true", entrypoint="sh")


def test_nothing_of_the_build_is_left_in_it(engine: Engine, image: str) -> None:
    assert run(engine, image, "-c", "ls -d /source /var/lib/apt/lists/*_* 2>/dev/null || true", entrypoint="sh") == ""


def test_without_keys_it_says_how_to_make_them_and_then_all_is_right(
    engine: Engine, image: str, volume: dict[str, dict[str, str]]
) -> None:
    with pytest.raises(AssertionError, match="ssh_host_ed25519_key does not exist; make it with: bastion keys init"):
        run(engine, image, "check-config", volumes=volume)
    assert "/etc/bastion/keys/ssh_host_ed25519_key (new)" in run(engine, image, "keys", "init", volumes=volume)
    said = run(engine, image, "check-config", volumes=volume)
    assert "recordings  /var/lib/bastion/recordings (writable), strict" in said


def test_it_serves_and_is_healthy_and_ends_when_told(
    engine: Engine, image: str, volume: dict[str, dict[str, str]]
) -> None:
    run(engine, image, "keys", "init", volumes=volume)
    every_second = {**engine.client.images.get(image).attrs["Config"]["Healthcheck"], "Interval": 10**9}
    healthcheck = {
        name.lower() if name != "StartPeriod" else "start_period": value for name, value in every_second.items()
    }
    container = engine.client.containers.run(
        image,
        detach=True,
        network_mode="none",
        healthcheck=healthcheck,
        volumes=volume | {engine.url.removeprefix("unix://"): {"bind": "/var/run/docker.sock", "mode": "rw"}},
        group_add=[Path(engine.url.removeprefix("unix://")).stat().st_gid],
    )

    def health() -> str:
        container.reload()
        assert container.status == "running", container.logs().decode()
        return str(container.attrs["State"]["Health"]["Status"])

    try:
        wait_until(lambda: health() == "healthy", "the image is healthy", 60)
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0, container.logs().decode()
    finally:
        container.remove(force=True, v=True)
