"""A bastion in front of the test engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.bastion import Bastion, serving
from tests.servers.engine import DEBIAN, Engine


@pytest.fixture(scope="session")
def bastion(servers_folder: Path, engine: Engine) -> Iterator[Bastion]:
    """One for all tests that do not need their own; alice owns web.worker.1 (Debian) and web.busy.1 (busybox)."""
    folder = servers_folder / "bastion"
    folder.mkdir()
    engine.app("web", "worker", 1, image=DEBIAN)
    engine.app("web", "busy", 1)
    engine.app("vault", "db", 1, owners="bob")
    with serving(folder, engine.url) as started:
        yield started
