"""Where audit events go. Each sink writes for one Writer, and fails with what a person can mend."""

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.chain import parse
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


def append(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write `data`: how many bytes of it are written, and why not all."""
    pending, written = memoryview(data), 0
    try:
        while written < len(pending):
            written += os.write(descriptor, pending[written:])
    except OSError as error:
        return written, error
    return written, None


def whole(lines: Sequence[bytes], written: int) -> int:
    """How many of `lines` are in the first `written` bytes of them, to their end."""
    for count, line in enumerate(lines):
        written -= len(line)
        if written < 0:
            return count
    return len(lines)


class StandardOutput:
    """One line an event on file descriptor 1."""

    name = "audit.stdout"

    def __init__(self) -> None:
        self._thread = Thread(self.name)
        self._torn = False  # the last line was cut short

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._write(batch))

    def _write(self, batch: Sequence[Entry]) -> int:
        """Whole lines; after a write that was cut short, first end the torn line, which no reader takes for JSON."""
        lines = [entry.line.encode() + b"\n" for entry in batch]
        end = b"#\n" * self._torn
        written, error = append(1, end + b"".join(lines))
        stored = whole(lines, written - len(end))
        if written:
            self._torn = written > len(end) + sum(map(len, lines[:stored]))
        if error is not None and not stored:
            raise error
        return stored

    async def close(self) -> None:
        self._thread.end()


class Anchor:
    """A second file, for signed heads: by them it is seen that the log was rolled back to an older one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"audit.anchor {path}"
        self._thread = Thread(self.name)

    async def open(self) -> None:
        """Make it where it is missing, but not its folder, which may be a disk that is not mounted. OSError."""
        await self._thread.call(lambda: self._write([]))

    async def write(self, batch: Sequence[Entry]) -> int:
        return await self._thread.call(lambda: self._write([entry.line.encode() + b"\n" for entry in batch]))

    def _write(self, lines: Sequence[bytes]) -> int:
        """Opened each time: it may be on another machine, and be moved away."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = bool(lines) and size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _, error = append(descriptor, b"\n" * torn + b"".join(lines))
            if error is not None:
                raise error  # what was written is written again: a head may be there twice
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return len(lines)

    async def close(self) -> None:
        self._thread.end()


class EventTable:
    """The table `events` and, in the same transaction, what some of them mean: a row of `commands`, a session's end.

    And its row, where the database was away when it began.
    """

    name = "database events"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        values = {name: bindparam(f"_{name}", type_=commands.c[name].type) for name in COMMAND_COLUMNS}
        of_session = select(*values.values(), sessions.c.app_name).where(sessions.c.session_id == values["session_id"])
        self._insert_session = insert_new(engine, sessions, "session_id")
        self._insert_command = insert_new(engine, commands, "command_id").from_select([*values, "app_name"], of_session)

    async def open(self) -> None:
        """The engine connects when it is first used."""

    async def last(self, bastion_id: str) -> int:
        """The number of the entry whose row of this bastion is the last; 0 where there is none, or no number in it."""
        asked = select(events.c.entry).where(events.c.bastion_id == bastion_id).order_by(events.c.position.desc())
        async with self._engine.connect() as connection:
            line = await connection.scalar(asked.limit(1))
        fields = parse(str(line).encode())
        return int(str(fields["seq"])) if fields is not None else 0

    async def write(self, batch: Sequence[Entry]) -> int:
        rows = [
            {column.name: entry.fields.get(column.name) for column in events.columns if not column.identity}
            | {"time": _moment(entry), "entry": entry.line}
            for entry in batch
        ]
        begun = [_session(entry) for entry in batch if entry.fields["event"] == Event.SESSION_START]
        lines = [_command(entry) for entry in batch if entry.fields["event"] == Event.SESSION_COMMAND]
        ends = [_end(entry) for entry in batch if entry.fields["event"] == Event.SESSION_END]
        async with self._engine.begin() as connection:
            await connection.execute(insert_new(self._engine, events, "id"), rows)
            if begun:
                await connection.execute(self._insert_session, begun)
            if lines:
                await connection.execute(self._insert_command, lines)
            if ends:
                await connection.execute(END_SESSION, ends)
        return len(batch)

    async def close(self) -> None:
        """Whoever made the engine disposes of it."""


def _moment(entry: Entry) -> datetime:
    return datetime.fromisoformat(str(entry.fields["time"]))


def _session(entry: Entry) -> dict[str, object]:
    """The row that SessionRows.begin() adds, as far as the event says it."""
    names = "session_id", "connection_id", "bastion_id", "user", "source_ip", "engine", "container_id", "command"
    row: dict[str, object] = {name: entry.fields[name] for name in names}
    address = str(entry.fields["address"]).rpartition("/")[2]
    found = re.fullmatch(r"(.+)\.([^.]+)\.([0-9]{1,18})", address, re.ASCII)
    app, proc, instance = (found[1], found[2], int(found[3])) if found else (address, None, None)
    row |= {"app_name": app, "proc_name": proc, "instance_no": instance, "terminal": bool(entry.fields["terminal"])}
    return row | {"status": ACTIVE, "created_at": _moment(entry), "updated_at": _moment(entry)}


def _command(entry: Entry) -> dict[str, object]:
    own = {"_command_id": entry.fields["id"], "_created_at": _moment(entry)}
    return {f"_{name}": entry.fields.get(name) for name in COMMAND_COLUMNS} | own


def _end(entry: Entry) -> dict[str, object]:
    return {"_session_id": entry.fields["session_id"], "_status": entry.fields["status"], "_time": _moment(entry)}
