"""The rows of the database beside the entries of a log: what is in the one and not, or otherwise, in the other."""

import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Select, Table, and_, exists, func, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import NullType

from bastion.audit.chain import parse
from bastion.audit.database import reading
from bastion.audit.events import Event
from bastion.audit.progress import UnderWay
from bastion.audit.sinks import COMMAND_COLUMNS
from bastion.audit.tables import ACTIVE, LOST, REFUSED, commands, events, sessions
from bastion.audit.verify import Line, What
from bastion.model import Address

BATCH = 500  # entries or rows a question
PAGE = 4096  # positions that are remembered in one number
BEGINNING = timedelta(seconds=60)  # between a session's row and its session.start is much less
_CUT = "...(cut, "  # what events.py appends to a long value; the row of a session has it whole

Fields = Mapping[str, Any]
Rows = Sequence[Fields]


@dataclass(frozen=True, slots=True)
class RowFinding:
    """What is wrong with a row, or with the entries that have none."""

    what: What
    table: str
    row: str
    detail: str

    def __str__(self) -> str:
        return f"{self.table}: {self.row}: {self.what}: {self.detail}"


@dataclass(slots=True)
class Compared:
    """How many rows were held against the log, what was passed over, and what is wrong."""

    rows: int = 0  # of `events` that are as they were written
    older: int = 0  # rows of entries in front of the oldest file
    waiting: int = 0  # entries that are under way, and sessions that are about to begin
    findings: list[RowFinding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    seq: int
    fields: Fields
    line: str

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(str(self.fields["time"]))


async def last_position(engine: AsyncEngine) -> int:
    """How far `events` goes now. Unavailable where the database does not answer: so does compare()."""
    async with reading(engine) as connection:
        return await connection.scalar(select(func.max(events.c.position))) or 0


async def compare(
    engine: AsyncEngine, position: int, under_way: UnderWay, lines: Iterable[Line], last: int
) -> Compared:
    """Hold the rows against the entries in `lines` up to number `last`, in batches: one bit a row is remembered.

    `position` is that of the last row before the log was read: each row up to it has its entry, and later ones are not
    asked for theirs. `under_way` was asked before, too. BastionError; OSError of the lines.
    """
    return await _Comparison(engine, position, under_way).run(lines, last)


class _Comparison:
    def __init__(self, engine: AsyncEngine, last: int, under_way: UnderWay) -> None:
        self.result = Compared()
        self._under_way = under_way
        self._engine = engine
        self._last = last  # position in `events`
        self._seen: dict[int, int] = defaultdict(int)
        self._first = 0  # entry of the log
        self._bastions: set[str] = set()
        self._pending: list[tuple[int, str]] = []  # number and id of entries that may have no row yet
        self._gap: list[int] = []  # the first and the last of the entries in a row that should have one
        self._before: dict[Table, tuple[int, int]] = {}  # the row that came last, and its entry
        self._newest: datetime | None = None  # of the entries that have their row
        self._processors = {
            column: column.type.dialect_impl(engine.dialect).bind_processor(engine.dialect)
            for table in (sessions, commands, events)
            for column in table.columns
        }

    async def run(self, lines: Iterable[Line], last: int) -> Compared:
        entries = (one for line in lines if (one := _entry(line)) is not None and one.seq <= last)
        while batch := list(islice(entries, BATCH)):
            self._first = self._first or batch[0].seq
            self._bastions |= {str(one.fields.get("bastion_id")) for one in batch}
            stored = await self._compare_events(batch)
            await self._compare_commands([one for one in stored if one.fields["event"] == Event.SESSION_COMMAND])
            await self._compare_sessions(batch, {one.seq for one in stored})
        self.result.waiting += len(self._pending)
        self._close_gap()
        await self._find_added_events()
        await self._find_added_commands()
        await self._find_added_sessions()
        await self._find_ended_sessions()
        return self.result

    # ---- each entry, and its row ----

    async def _compare_events(self, batch: Sequence[_Entry]) -> list[_Entry]:
        """Returns the entries that have their row."""
        ids = [str(one.fields["id"]) for one in batch]
        rows = {row["id"]: row for row in await self._ask(select(*_raw(events)).where(events.c.id.in_(ids)))}
        stored = []
        for one in batch:
            row = rows.get(one.fields["id"])
            if row is None:
                if self._under_way.may_be_missing(one.seq, one.fields["id"]):
                    self._pending.append((one.seq, str(one.fields["id"])))
                else:
                    self._removed(one.seq)
                continue
            if self._pending:
                await self._look_again()
            self._in_order(events, row, one)
            stored.append(one)
            self._newest = one.moment
            self._seen[row["position"] // PAGE] |= 1 << row["position"] % PAGE
            expected = {column.name: one.fields.get(column.name) for column in events.columns if not column.identity}
            expected |= {"time": one.moment, "entry": one.line}
            self.result.rows += self._same(events, f"row {row['position']}", row, expected, one)
        return stored

    async def _look_again(self) -> None:
        """A later entry has its row. Since they come in order, these have theirs now, or had it once."""
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), BATCH):
            part = pending[start : start + BATCH]
            ids = await self._ask(select(events.c.id).where(events.c.id.in_([id_ for _, id_ in part])))
            there = {row["id"] for row in ids}
            for seq, id_ in part:
                if id_ in there:
                    self.result.waiting += 1  # it came meanwhile
                else:
                    self._removed(seq)

    def _removed(self, seq: int) -> None:
        if self._gap and seq == self._gap[1] + 1:
            self._gap[1] = seq
            return
        self._close_gap()
        self._gap = [seq, seq]

    def _close_gap(self) -> None:
        if self._gap:
            first, last = self._gap
            self._gap = []
            which = f"entry {first}" if first == last else f"entries {first} to {last}"
            self._found(What.REMOVED, events, which, "no row, and it is not under way any more")

    def _in_order(self, table: Table, row: Fields, one: _Entry) -> None:
        position, seq = self._before.get(table, (row["position"] - 1, 0))
        if row["position"] < position:
            detail = f"of entry {one.seq}, and in front of row {position} of entry {seq}"
            self._found(What.REORDERED, table, f"row {row['position']}", detail)
        self._before[table] = row["position"], one.seq

    async def _compare_commands(self, entries: Sequence[_Entry]) -> None:
        """Their rows came in the same transaction as those of `events`."""
        if not entries:
            return
        ids = [str(one.fields["id"]) for one in entries]
        asked = select(*_raw(commands)).where(commands.c.command_id.in_(ids))
        rows = {row["command_id"]: row for row in await self._ask(asked)}
        begun = await self._sessions(entries)
        for one in entries:
            row = rows.get(one.fields["id"])
            if row is None:
                self._found(What.REMOVED, commands, f"entry {one.seq}", "no row of this session.command")
                continue
            self._in_order(commands, row, one)
            expected = {name: one.fields.get(name) for name in COMMAND_COLUMNS}
            expected |= {"command_id": one.fields["id"], "created_at": one.moment}
            session = begun.get(one.fields["session_id"])
            expected |= {"app_name": session["app_name"]} if session is not None and _is_at(session, one) else {}
            self._same(commands, f"row {row['position']}", row, expected, one)

    async def _compare_sessions(self, batch: Sequence[_Entry], stored: set[int]) -> None:
        """A session's row is there before its session.start; how it ended, as soon as session.end has its row."""
        told = [one for one in batch if one.fields["event"] in (Event.SESSION_START, Event.SESSION_END)]
        if not told:
            return
        rows = await self._sessions(told)
        for one in told:
            row = rows.get(one.fields["session_id"])
            which = f"session {one.fields['session_id']}"
            if row is None:
                self._found(What.REMOVED, sessions, which, f"no row, and entry {one.seq} is its {one.fields['event']}")
                continue
            names = ["connection_id", "bastion_id", "user", "source_ip", "container_id", "engine"]
            expected: dict[str, object] = {}
            if one.fields["event"] == Event.SESSION_START:
                names += ["terminal", "command"]
                if row["status"] == REFUSED:
                    self._found(What.CHANGED, sessions, which, f"status is {REFUSED!r}, but entry {one.seq} began it")
            elif one.seq in stored:
                names += ["status"]
                expected |= {"ended_at": one.moment, "updated_at": one.moment}
            expected |= {name: one.fields.get(name) for name in names}
            self._same(sessions, which, row, expected, one)
            if not _is_at(row, one):
                detail = (
                    f"app_name, proc_name and instance_no are not those of {one.fields['address']}, entry {one.seq}"
                )
                self._found(What.CHANGED, sessions, which, detail)

    async def _sessions(self, entries: Sequence[_Entry]) -> dict[object, Fields]:
        ids = {str(one.fields["session_id"]) for one in entries}
        asked = select(*_raw(sessions)).where(sessions.c.session_id.in_(ids))
        return {row["session_id"]: row for row in await self._ask(asked)}

    def _same(self, table: Table, which: str, row: Fields, expected: Fields, one: _Entry) -> bool:
        """Is what the row has in these columns what the entry says?"""
        same = True
        for name, value in expected.items():
            column = table.c[name]
            process: Callable[[Any], Any] | None = self._processors[column]
            bound = process(value) if process is not None else value
            if row[name] == bound or (table is sessions and _begins(row[name], bound)):
                continue
            same = False
            detail = f"{name} is {reprlib.repr(row[name])}, entry {one.seq} says {reprlib.repr(bound)}"
            if name == "entry":
                detail = f"entry is not the line of entry {one.seq} in the log"
            self._found(What.CHANGED, table, which, detail)
        return same

    # ---- each row, and its entry ----

    async def _find_added_events(self) -> None:
        ours, position = events.c.bastion_id.in_(self._bastions), -(2**63)
        while True:
            asked = select(events.c.position).where(ours, events.c.position.between(position + 1, self._last))
            page = [row["position"] for row in await self._ask(asked.order_by(events.c.position).limit(PAGE))]
            if not page:
                return
            position = page[-1]
            unseen = [one for one in page if not self._seen[one // PAGE] >> one % PAGE & 1]
            for start in range(0, len(unseen), BATCH):
                among = events.c.position.in_(unseen[start : start + BATCH])
                for row in await self._ask(select(*_raw(events)).where(among).order_by(events.c.position)):
                    fields = parse(str(row["entry"]).encode())
                    if fields is not None and int(str(fields["seq"])) < self._first:
                        self.result.older += 1
                        continue
                    detail = f"no entry has the id {reprlib.repr(row['id'])}"
                    self._found(What.ADDED, events, f"row {row['position']}", detail)

    async def _find_added_commands(self) -> None:
        """`events` was compared already: what it has is not asked of the log again."""
        told = exists().where(events.c.id == commands.c.command_id, events.c.event == Event.SESSION_COMMAND.value)
        of = or_(sessions.c.bastion_id.in_(self._bastions), sessions.c.bastion_id.is_(None))
        joined = commands.outerjoin(sessions, sessions.c.session_id == commands.c.session_id)
        asked = select(commands.c.position).select_from(joined).where(of, ~told)
        async for row in self._pages(asked, commands.c.position):
            self._found(What.ADDED, commands, f"row {row['position']}", "there is no session.command of it")

    async def _find_added_sessions(self) -> None:
        names = (Event.SESSION_START.value, Event.SESSION_END.value)
        told = exists().where(events.c.session_id == sessions.c.session_id, events.c.event.in_(names))
        asked = self._own_sessions().where(~told, sessions.c.status != REFUSED)
        now, newest = datetime.now(UTC), self._newest or datetime.min.replace(tzinfo=UTC) + BEGINNING
        begins = and_(
            sessions.c.status == ACTIVE, sessions.c.created_at.between(newest - BEGINNING, now + BEGINNING)
        ).label("begins")
        async for row in self._pages(asked.add_columns(begins), sessions.c.session_id):
            if row["begins"]:
                self.result.waiting += 1
            else:
                self._found(What.ADDED, sessions, f"session {row['session_id']}", "there is no session.start of it")

    async def _find_ended_sessions(self) -> None:
        """A crash may leave LOST without an event, and REFUSED never has one."""
        over = exists().where(events.c.session_id == sessions.c.session_id, events.c.event == Event.SESSION_END.value)
        begun = exists().where(
            events.c.session_id == sessions.c.session_id, events.c.event == Event.SESSION_START.value
        )
        asked = self._own_sessions().where(~over, begun, sessions.c.status.not_in((ACTIVE, REFUSED, LOST)))
        async for row in self._pages(asked, sessions.c.session_id):
            detail = f"status is {reprlib.repr(row['status'])}, and there is no session.end of it"
            self._found(What.CHANGED, sessions, f"session {row['session_id']}", detail)

    def _own_sessions(self) -> "Select[Any]":
        return select(sessions.c.session_id, sessions.c.status).where(sessions.c.bastion_id.in_(self._bastions))

    async def _pages(self, asked: "Select[Any]", key: Any) -> Any:
        last = None
        while page := await self._ask((asked if last is None else asked.where(key > last)).order_by(key).limit(BATCH)):
            for row in page:
                yield row
            last = page[-1][key.name]

    async def _ask(self, question: "Select[Any]") -> Rows:
        async with reading(self._engine) as connection:
            return [dict(row) for row in (await connection.execute(question)).mappings()]

    def _found(self, what: What, table: Table, row: str, detail: str) -> None:
        self.result.findings.append(RowFinding(what, table.name, row, detail))


def _raw(table: Table) -> list[Any]:
    """The columns as the driver has them: whatever somebody has put there is no error."""
    return [type_coerce(column, NullType()).label(column.name) for column in table.columns]


def _is_at(session: Fields, one: _Entry) -> bool:
    """Has the row of a session the address that the entry says? The cluster has no column."""
    address = str(Address(session["app_name"], session["proc_name"], session["instance_no"]))
    return address in (one.fields["address"], str(one.fields["address"]).partition("/")[2])


def _begins(found: object, said: object) -> bool:
    """Is what the log has cut short the beginning of what the row has?"""
    if not isinstance(found, str) or not isinstance(said, str) or not said.endswith(" characters)"):
        return False
    beginning, cut, _ = said.rpartition(_CUT)
    return bool(cut) and found.startswith(beginning)


def _entry(line: Line) -> _Entry | None:
    fields = parse(line.raw) if line.whole else None
    if fields is None or not fields.keys() >= {"id", "time", "event"}:
        return None
    return _Entry(int(str(fields["seq"])), fields, line.raw.decode())
