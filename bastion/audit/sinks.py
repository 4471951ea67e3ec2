"""Where audit events go. Each sink writes for one Writer, and fails with what a person can mend."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import insert_new
from bastion.audit.events import Entry, Event
from bastion.audit.tables import ACTIVE, LOST, Utc, commands, events, sessions
from bastion.audit.thread import Thread

COMMAND_COLUMNS = (
    "command_id",
    "session_id",
    "user",
    "address",
    "content",
    "confidence",
    "prompt",
    "at",
    "degraded",
    "created_at",
)
END_SESSION = (
    update(sessions)
    # LOST: another process of this bastion started meanwhile and took it for dead
    .where(sessions.c.session_id == bindparam("_session_id"))
    .where(or_(sessions.c.status == ACTIVE, sessions.c.status == LOST))
    .values(
        status=bindparam("_status"),
        ended_at=bindparam("_time", type_=Utc()),
        updated_at=bindparam("_time", type_=Utc()),
    )
)


class StandardOutput:
    """One line an event on file descriptor 1."""

    name = "audit.stdout"

    def __init__(self) -> None:
        self._thread = Thread(self.name)
        self._torn = False  # the last line was cut short

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._append(1, batch))

    def _append(self, descriptor: int, batch: Sequence[Entry]) -> int:
        """Write whole lines; after a write that was cut short, first end the torn line, which no reader takes for JSON.

        Truncating instead would make followers read the file anew, and is refused on an append-only file.
        """
        lines = [entry.line.encode("ascii") + b"\n" for entry in batch]
        pending = memoryview(b"\n" * self._torn + b"".join(lines))
        written = 0
        try:
            while written < len(pending):
                written += os.write(descriptor, pending[written:])
        except OSError:
            if written:
                self._torn = pending[written - 1] != ord("\n")
            written -= len(pending) - sum(map(len, lines))
            stored = 0
            while stored < len(lines) and written >= len(lines[stored]):
                written -= len(lines[stored])
                stored += 1
            if not stored:
                raise
            return stored
        self._torn = False
        return len(lines)

    async def close(self) -> None:
        self._thread.end()


class LineFile(StandardOutput):
    """One line an event, appended to a file (0600 when it is made here).

    When somebody moved the file away (logrotate) or removed it, it is made again; nothing is written to where
    nobody can read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"audit.file {path}"
        self._descriptor: int | None = None
        super().__init__()

    async def open(self) -> None:
        """Make the file and its folder where they are missing. OSError."""
        await self._thread.call(self._make)

    def _make(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._current()

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._append(self._current(), batch))

    def _current(self) -> int:
        """A descriptor of the file that is at the path now."""
        if self._descriptor is not None:
            if self._same():
                return self._descriptor
            self._shut()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        return self._descriptor

    def _same(self) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def close(self) -> None:
        self._thread.end(self._shut)


class EventTable:
    """The table `events` and, in the same transaction, what two of them mean: a row of `commands`, a session's end."""

    name = "database events"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        values = {name: bindparam(f"_{name}", type_=commands.c[name].type) for name in COMMAND_COLUMNS}
        of_session = select(*values.values(), sessions.c.app_name).where(sessions.c.session_id == values["session_id"])
        self._insert_command = insert_new(engine, commands, "command_id").from_select([*values, "app_name"], of_session)

    async def open(self) -> None:
        """The engine connects when it is first used."""

    async def write(self, batch: Sequence[Entry]) -> int:
        rows = [
            {column.name: entry.fields.get(column.name) for column in events.columns if not column.identity}
            | {"time": _moment(entry), "entry": entry.line}
            for entry in batch
        ]
        lines = [_command(entry) for entry in batch if entry.fields["event"] == Event.SESSION_COMMAND]
        ends = [_end(entry) for entry in batch if entry.fields["event"] == Event.SESSION_END]
        async with self._engine.begin() as connection:
            await connection.execute(insert_new(self._engine, events, "id"), rows)
            if lines:
                await connection.execute(self._insert_command, lines)
            if ends:
                await connection.execute(END_SESSION, ends)
        return len(batch)

    async def close(self) -> None:
        """Whoever made the engine disposes of it."""


def _moment(entry: Entry) -> datetime:
    return datetime.fromisoformat(str(entry.fields["time"]))


def _command(entry: Entry) -> dict[str, object]:
    own = {"_command_id": entry.fields["id"], "_created_at": _moment(entry)}
    return {f"_{name}": entry.fields.get(name) for name in COMMAND_COLUMNS} | own


def _end(entry: Entry) -> dict[str, object]:
    return {"_session_id": entry.fields["session_id"], "_status": entry.fields["status"], "_time": _moment(entry)}
