"""The audit log: what happened, bound to who did it, written before it goes on."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.chain import Chain
from bastion.audit.database import describe
from bastion.audit.delivery import Delivery
from bastion.audit.events import Entry, Event, entry
from bastion.audit.files import is_begun
from bastion.audit.ledger import Ledger
from bastion.audit.logfile import LogFile, Touched
from bastion.audit.signing import generate, load
from bastion.audit.sinks import Anchor, EventTable, StandardOutput
from bastion.audit.syslog import Syslog
from bastion.audit.verify import Finding
from bastion.audit.writer import Writer
from bastion.config import Audit
from bastion.errors import ConfigError, Reason, Unavailable

CAPACITY = 16 << 20  # bytes of events that wait for a sink
WRITE_LIMIT = 5.0  # seconds that a sink may take for a write, and emit() waits
LOOK = 0.05  # seconds after which it is looked whether the ledger, or the spool, fails
OPEN_LIMIT = 120.0  # seconds that reading and verifying the file may take at the start
OVER = (Event.SESSION_END, Event.CONNECTION_CLOSE, Event.RECORDING_FAILED)  # can not be refused: they follow
CLOSE_LIMIT = 5.0  # seconds that all sinks together have at the end
_logger = logging.getLogger(__name__)


class _Sink(Protocol):
    @property
    def name(self) -> str: ...
    async def open(self) -> None: ...
    async def write(self, batch: Sequence[Entry], /) -> int: ...
    async def close(self) -> None: ...


class BoundLog:
    """The audit log with fields that every event from here on carries."""

    def __init__(self, log: "AuditLog", fields: Mapping[str, object]) -> None:
        self._log = log
        self._fields = fields

    def bind(self, **fields: object) -> "BoundLog":
        """With more fields. TypeError where one is bound already, to something else: an identity does not change."""
        return BoundLog(self._log, self._merged(fields))

    async def emit(self, event: Event, **fields: object) -> None:
        """Remember that `event` happened now; returns when the log has it.

        That is: when its line is durable in the file or, where none is configured, out on standard output. The database
        follows on its own. Unavailable (AUDIT_UNAVAILABLE) when it can't be written: what was to be logged must not
        happen; if audit.mode is best_effort, it may, and the event follows. TypeError where a field that the catalogue
        demands is missing.
        """
        await self._log.write(event, self._merged(fields))

    def _merged(self, fields: Mapping[str, object]) -> dict[str, object]:
        if changed := [name for name in fields if name in self._fields and fields[name] != self._fields[name]]:
            raise TypeError(f"{', '.join(changed)}: bound already, to something else")
        return {**self._fields, **fields}


class AuditLog(BoundLog):
    """Owns the sinks; `async with` opens and closes them. ConfigError where the file can't be written, or was touched.

    The ledger (file, else standard output) decides what emit() says, and gives each event its place in the chain. The
    others get what it has, in its order, and follow at their own speed, each with a queue and a task of its own: they
    are tried again until they take it; what does not fit into their queue meanwhile is dropped, counted, and said in
    the log when they are back. For the database events wait in `state_folder`, also over a restart; emit() waits until
    they are there, as long as they can be.
    """

    def __init__(self, config: Audit, bastion_id: str, database: AsyncEngine, state_folder: Path) -> None:
        super().__init__(self, {})
        self._config = config
        self._bastion_id = bastion_id
        self._sinks: list[_Sink] = []
        if config.file is not None and config.stdout:
            self._sinks.append(StandardOutput())
        if config.anchor is not None:
            self._sinks.append(Anchor(config.anchor))
        if config.syslog is not None:
            self._sinks.append(Syslog(config.syslog))
        table = EventTable(database)
        self._delivery = Delivery(bastion_id, table, state_folder, self._changed, self._caught_up)
        self._sinks.append(self._delivery)
        self._writers: list[Writer[Entry]] = []
        self._spooled: asyncio.Future[Exception | None] | None = None
        self._refused = 0  # events, since the ledger failed

    async def __aenter__(self) -> Self:
        config = self._config
        if config.file is None or not is_begun(config.file):
            generate(
                config.signing_key
            )  # later, a key that is gone stops the start: nobody could tell it from another's
        key = load(config.signing_key)
        self._chain = Chain(self._bastion_id, key, config.head_events)
        self._ledger = Ledger(self._chain, self._pass_on)
        if config.file is not None:
            strict = config.mode == "strict"
            self._ledger = LogFile(config.file, self._chain, key.public, config.anchor, strict, self._pass_on)
        sinks: list[_Sink] = [self._ledger, *self._sinks]
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                for sink in sinks:
                    await sink.open()
        except (OSError, Touched) as error:
            await self._close_sinks()
            what = str(error) if isinstance(error, Touched) else f"the audit log can not be written: {describe(error)}"
            raise ConfigError([f"{sink.name}: {line}" for line in what.split("\n")]) from None
        except ConfigError:
            await self._close_sinks()
            raise
        self._writers = [
            Writer(
                sink.name,
                sink.write,
                capacity=CAPACITY,
                attempt=WRITE_LIMIT,
                linger=config.commit_delay if sink is self._ledger else 0,
                changed=self._changed,
            )
            for sink in sinks
        ]
        self._delivery.start(self._ledger.behind)
        await self._put_head()
        self._heads = asyncio.create_task(self._sign(config.head_interval), name="audit heads")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._heads.cancel()
        await asyncio.wait({self._heads})
        with contextlib.suppress(TimeoutError):  # what the database's sink has to say of it, too, is in the log then
            async with asyncio.timeout(CLOSE_LIMIT):
                await self.settle()
        ledger, *others = self._writers
        await self._put_head()
        lost = await asyncio.gather(*(writer.close(CLOSE_LIMIT) for writer in others))
        for writer, count in zip(others, lost, strict=True):
            if count:
                reason = f"{count} events not written at the end"
                _logger.error("%s: %s", writer.name, reason)
                self._note(Event.AUDIT_FAILED, sink=writer.name, reason=reason)
        if any(lost):
            await self._put_head()
        await ledger.close(CLOSE_LIMIT)
        await self._close_sinks()

    async def _close_sinks(self) -> None:
        for sink in (self._ledger, *self._sinks):
            await sink.close()

    async def settle(self) -> bool:
        """Wait until the database has all events; False as soon as it takes none."""
        return await self._delivery.settle()

    @property
    def findings(self) -> Sequence[Finding]:
        """What was wrong with the file when it was opened; none where audit.mode is strict."""
        return self._ledger.findings

    async def write(self, event: Event, fields: Mapping[str, object]) -> None:
        """What emit() does, with all fields."""
        made = entry(event, self._bastion_id, fields)
        ledger = self._writers[0]
        goes_on = self._config.mode == "best_effort" or event in OVER
        done = ledger.put(made, keep=goes_on, weight=len(made.line))
        deadline = time.monotonic() + WRITE_LIMIT
        while not done.done() and time.monotonic() < deadline and not (goes_on and ledger.error):
            await asyncio.wait({done}, timeout=LOOK if goes_on else WRITE_LIMIT)
        await self._until_spooled()
        error = done.result() if done.done() else TimeoutError()
        if error is None or goes_on:
            return
        self._refused += 1
        raise Unavailable(
            Reason.AUDIT_UNAVAILABLE,
            "This can't be written to the audit log, so it is not done. Please tell the administrators.",
            f"{event} was not written to {ledger.name}: {describe(error)}",
        )

    async def _until_spooled(self) -> None:
        """Wait until what was put is on its way to the database over a restart; not for a spool that takes nothing."""
        spooled, writer = self._spooled, self._writers[-1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_LIMIT):
                while spooled is not None and not spooled.done() and writer.error is None:
                    await asyncio.wait({spooled}, timeout=LOOK)

    def _pass_on(self, entries: Sequence[Entry]) -> None:
        """What the ledger has goes to the others."""
        for sink, writer in zip(self._sinks, self._writers[1:], strict=True):
            for one in entries:
                if not isinstance(sink, Anchor) or one.fields["event"] == Event.AUDIT_HEAD:
                    self._spooled = writer.put(one, keep=True, weight=len(one.line))  # the database's is the last

    async def _sign(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            if self._chain.unsigned:
                await self._put_head()

    async def _put_head(self) -> None:
        """Sign what no head vouches for yet."""
        await asyncio.wait({self._writers[0].put(self._chain.head(), keep=False)}, timeout=WRITE_LIMIT)

    def _changed(self, writer: Writer[Entry] | Delivery, error: Exception | None) -> None:
        """A sink is away, or is back: the operator is told once, and so is the log, as soon as it can be."""
        dropped = writer.dropped
        if error is not None:
            _logger.error("%s: the audit log can not be written there: %s", writer.name, describe(error))
            if writer is not self._writers[0]:
                self._note(Event.AUDIT_FAILED, sink=writer.name, reason=describe(error))
            return
        if writer is self._writers[0]:
            dropped, self._refused = dropped + self._refused, 0
        _logger.warning("%s: the audit log is written there again; %d events lost", writer.name, dropped)
        self._note(Event.AUDIT_RECOVERED, sink=writer.name, dropped=dropped)

    def _caught_up(self, delivery: Delivery, late: int, removed: int) -> None:
        """What the log had has its rows now. After a crash it is a few entries; `removed` had them once."""
        told = _logger.error if removed else _logger.warning
        told("%s: %d entries of the log had no row there, %d of them not any more", delivery.name, late, removed)
        self._note(Event.AUDIT_CAUGHT_UP, sink=delivery.name, late=late, removed=removed)

    def _note(self, event: Event, **fields: object) -> None:
        made = entry(event, self._bastion_id, fields)
        self._writers[0].put(made, keep=False, weight=len(made.line))
