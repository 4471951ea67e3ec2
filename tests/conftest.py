"""Servers that are shared by all tests of a run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.engine import Engine, docker_engine
from tests.servers.newer_engine import newer_docker_engine
from tests.servers.oidc import Provider, oidc_provider
from tests.servers.podman import podman_engine

# How long an example takes to make says how busy the machine is, and nothing about the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A short path (a unix socket's has at most 107 bytes), gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(servers_folder: Path) -> Iterator[Engine]:
    folder = servers_folder / "engine"
    folder.mkdir()
    with docker_engine(folder) as started:
        yield started


@pytest.fixture(scope="session")
def newer_engine(servers_folder: Path, engine: Engine) -> Iterator[Engine]:
    """Docker 26; the others are Docker 20.10 and Podman 4.3, as Debian 12 has them."""
    folder = servers_folder / "newer"
    folder.mkdir()
    with newer_docker_engine(folder, engine) as started:
        yield started


@pytest.fixture(scope="session")
def podman(servers_folder: Path) -> Iterator[Engine]:
    folder = servers_folder / "pod"  # the demo's tests have another podman/
    folder.mkdir()
    with podman_engine(folder) as started:
        yield started


@pytest.fixture(scope="session")
def provider(servers_folder: Path) -> Iterator[Provider]:
    folder = servers_folder / "oidc"
    folder.mkdir()
    with oidc_provider(folder) as started:
        yield started
