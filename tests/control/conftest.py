"""A log with a control socket, as a bastion has them, and what a command line knows of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bastion.audit.database import create_engine, upgrade
from bastion.audit.log import AuditLog
from bastion.config import Config, load_config
from bastion.control.lock import lock, make_folder
from bastion.control.server import ControlServer
from bastion.errors import BastionError
from bastion.model import Identity
from tests.audit.sections import others


class FakeSessions:
    """Sessions take an engine; what they do when they are ended is shown in tests/e2e/test_control.py."""

    def __init__(self) -> None:
        self.killed: list[tuple[str, str, str]] = []

    async def kill(self, session_id: str, *, by: str, why: str) -> None:
        if session_id != "s1":
            raise BastionError(f"session {session_id} does not run on this bastion")
        self.killed.append((session_id, by, why))


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    """In a folder whose path is longer than a socket's may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    (folder / "config.yaml").write_text("auth: {local: {}}\nbastion_id: b1\n")
    config = load_config(folder / "config.yaml")
    await upgrade(config.database)
    return config


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def bastion(config: Config, sessions: FakeSessions) -> AsyncIterator[ControlServer]:
    database = create_engine(config.database)
    make_folder(config.state_folder)
    with lock(config.state_folder) as mine:
        assert mine
        async with (
            AuditLog(config.audit, config.bastion_id, database, config.state_folder) as log,
            ControlServer(config.state_folder, log, sessions, owned) as server,  # type: ignore[arg-type] # see there
        ):
            yield server
    await database.dispose()


def owned(who: Identity) -> set[str]:
    return {"web"} if who.user == "alice" and who.groups == {"dev"} else set()


def events(config: Config) -> list[dict[str, Any]]:
    assert config.audit.file is not None
    return others(json.loads(line) for line in config.audit.file.read_text().splitlines())


async def raw(config: Config, request: bytes) -> bytes:
    """What the socket answers to these bytes."""
    folder = config.state_folder
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f"cd '{folder}' && exec python3 -c '{CLIENT}'", stdin=-1, stdout=-1
    )
    answer, _ = await process.communicate(request)
    return answer


CLIENT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("control.sock")
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
while data := s.recv(65536):
    sys.stdout.buffer.write(data)
"""
