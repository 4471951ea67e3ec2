"""A bastion in front of the test engine."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def another(bastion: Bastion, folder: Path) -> Path:
    """`folder` with the keys and users of that bastion, for one with another configuration."""
    for name in ("keys", "users.yaml", "alice_key", "bob_key"):
        path = bastion.folder / name
        shutil.copytree(path, folder / name) if path.is_dir() else shutil.copy(path, folder / name)
    return folder


@pytest.fixture
def folder(bastion: Bastion, tmp_path: Path) -> Path:
    return another(bastion, tmp_path)


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a client in the background: stdin and stdout are pipes unless said otherwise; killed at the end."""
    with contextlib.ExitStack() as clients:

        def started(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **kwargs}
            return clients.enter_context(contextlib.closing(_Client(command, **pipes)))

        yield started


class _Client(subprocess.Popen[bytes]):
    def close(self) -> None:
        self.kill()
        self.wait(5)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
