"""A log and its database, as a bastion writes them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.comparison import Compared, compare, last_position
from bastion.audit.database import create_engine
from bastion.audit.events import Event
from bastion.audit.files import files, lines_of
from bastion.audit.log import AuditLog
from bastion.audit.progress import under_way
from bastion.audit.sessions import SessionRows
from bastion.config import Database
from bastion.model import Address, Container, ContainerState
from bastion.recording.chain import End
from tests.audit.sections import audit

CONNECTION = {"connection_id": "c1", "user": "alice", "source_ip": "192.0.2.7"}


async def one_session(
    log: AuditLog,
    rows: SessionRows,
    name: str,
    command: str | None,
    ends: bool = True,
    recorded: End | None = None,
) -> None:
    address = Address("web", "worker", len(name), "east" if command else None)
    container = Container("local", "f00d" * 16, "web_1", "image", {}, ContainerState.RUNNING, address)
    await rows.begin(session_id=name, container=container, terminal=command is None, command=command, **CONNECTION)
    bound = log.bind(session_id=name, address=str(address), container_id=container.id, engine="local", **CONNECTION)
    await bound.emit(
        Event.SESSION_START, terminal=command is None, command=command, rule="label", recording=f"{name}.cast"
    )
    for number in range(3):
        await bound.emit(
            Event.SESSION_COMMAND,
            content=f"echo {number}\0\udc80",
            confidence="exact",
            at=number + 0.5,
            prompt="$ ",
            degraded=False,
        )
    if ends:
        recording = asdict(recorded) if recorded is not None else None
        await bound.emit(Event.SESSION_END, status="ended", exit_status=0, recording=recording)


@dataclass(frozen=True)
class Trail:
    folder: Path
    engine: AsyncEngine

    @property
    def file(self) -> Path:
        return self.folder / "audit.jsonl"

    def log(self, engine: AsyncEngine | None = None, bastion: str = "b1", state: str = "state") -> AuditLog:
        file = self.file if bastion == "b1" else self.folder / bastion
        (self.folder / state / bastion).mkdir(parents=True, exist_ok=True)
        options = audit(
            file, head_events=15, anchor=self.folder / ("anchor" if bastion == "b1" else f"anchor-{bastion}")
        )
        return AuditLog(options, bastion, engine or self.engine, self.folder / state / bastion)

    def away(self) -> AsyncEngine:
        return create_engine(Database(url=SecretStr(f"sqlite+aiosqlite:///{self.folder}/nowhere/bastion.db")))

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for path in files(self.file) for line in path.read_text().splitlines()]

    async def compare(self, paths: Sequence[Path] = ()) -> Compared:
        position, way = await last_position(self.engine), under_way(self.folder / "state" / "b1")
        lines = (line for path in paths or files(self.file) for line in lines_of(path))
        return await compare(self.engine, position, way, lines, 10**9)
