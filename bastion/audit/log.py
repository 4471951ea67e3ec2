"""The audit log: what happened, bound to who did it, written before it goes on."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import describe
from bastion.audit.delivery import Delivery
from bastion.audit.events import Entry, Event, entry
from bastion.audit.sinks import EventTable, LineFile, StandardOutput
from bastion.audit.syslog import Syslog
from bastion.audit.writer import Writer
from bastion.config import Audit
from bastion.errors import ConfigError, Reason, Unavailable

CAPACITY = 16 << 20  # bytes of events that wait for a sink
WRITE_LIMIT = 5.0  # seconds that a sink may take for a write, and emit() waits
SPOOL_LOOK = 0.05  # seconds after which it is looked whether the spool fails
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

        That is: when write(2) put its line into the file or, where none is configured, out to standard output.
        The database follows on its own. Unavailable (AUDIT_UNAVAILABLE) when it can't be written: what was to be
        logged must not happen. TypeError where a field that the catalogue demands is missing.
        """
        await self._log.write(event, self._merged(fields))

    def _merged(self, fields: Mapping[str, object]) -> dict[str, object]:
        if changed := [name for name in fields if name in self._fields and fields[name] != self._fields[name]]:
            raise TypeError(f"{', '.join(changed)}: bound already, to something else")
        return {**self._fields, **fields}


class AuditLog(BoundLog):
    """Owns the sinks; `async with` opens and closes them. ConfigError where the file can't be written.

    The first sink (file, else standard output) decides what emit() says. The others follow at their own speed,
    each with a queue and a task of its own: they are tried again, in order, until they take it; what does not fit
    into their queue meanwhile is dropped, counted, and said in the log when they are back. For the database events
    wait in `state_folder`, also over a restart; emit() waits until they are there, as long as they can be.
    """

    def __init__(self, config: Audit, bastion_id: str, database: AsyncEngine, state_folder: Path) -> None:
        super().__init__(self, {})
        self._bastion_id = bastion_id
        self._sinks: list[_Sink] = []
        if config.file is not None:
            self._sinks.append(LineFile(config.file))
        if config.stdout:
            self._sinks.append(StandardOutput())
        if config.syslog is not None:
            self._sinks.append(Syslog(config.syslog))
        self._delivery = Delivery(EventTable(database), state_folder / "spool", self._changed)
        self._sinks.append(self._delivery)
        self._writers: list[Writer[Entry]] = []
        self._spooled: asyncio.Future[Exception | None] | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(WRITE_LIMIT):
                for sink in self._sinks:
                    await sink.open()
        except OSError as error:
            await self._close_sinks()
            raise ConfigError([f"{sink.name}: the audit log can not be written: {describe(error)}"]) from None
        self._writers = [
            Writer(
                sink.name,
                sink.write,
                capacity=CAPACITY,
                attempt=WRITE_LIMIT,
                changed=self._changed,
            )
            for sink in self._sinks
        ]
        self._delivery.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        first, *others = self._writers
        lost = await asyncio.gather(*(writer.close(CLOSE_LIMIT) for writer in others))
        for writer, count in zip(others, lost, strict=True):
            if count:
                reason = f"{count} events not written at the end"
                _logger.error("%s: %s", writer.name, reason)
                fields = {"sink": writer.name, "reason": reason}
                first.put(entry(Event.AUDIT_FAILED, self._bastion_id, fields), keep=False)
        await first.close(CLOSE_LIMIT)
        await self._close_sinks()

    async def _close_sinks(self) -> None:
        for sink in self._sinks:
            await sink.close()

    async def settle(self) -> bool:
        """Wait until the database has all events; False as soon as it takes none."""
        return await self._delivery.settle()

    async def write(self, event: Event, fields: Mapping[str, object]) -> None:
        """What emit() does, with all fields."""
        first = self._put(event, fields)
        await asyncio.wait({first}, timeout=WRITE_LIMIT)
        await self._until_spooled()
        error = first.result() if first.done() else TimeoutError()
        if error is not None:
            raise Unavailable(
                Reason.AUDIT_UNAVAILABLE,
                "This can't be written to the audit log, so it is not done. Please tell the administrators.",
                f"{event} was not written to {self._writers[0].name}: {describe(error)}",
            )

    async def _until_spooled(self) -> None:
        """Wait until what was put is on its way to the database over a restart; not for a spool that takes nothing."""
        spooled, writer = self._spooled, self._writers[-1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_LIMIT):
                while spooled is not None and not spooled.done() and writer.error is None:
                    await asyncio.wait({spooled}, timeout=SPOOL_LOOK)

    def _put(self, event: Event, fields: Mapping[str, object]) -> "asyncio.Future[Exception | None]":
        """Hand an event to all sinks, in one go: every sink gets all events in the same order."""
        made = entry(event, self._bastion_id, fields)
        weight = len(made.line)
        first, *others = self._writers
        done = first.put(made, keep=False, weight=weight)
        for writer in others:
            self._spooled = writer.put(made, keep=True, weight=weight)  # the database's is the last
        return done

    def _changed(self, writer: Writer[Entry] | Delivery, error: Exception | None) -> None:
        """A sink is away, or is back: the operator is told once, and so are the sinks."""
        if error is not None:
            _logger.error("%s: the audit log can not be written there: %s", writer.name, describe(error))
            self._put(Event.AUDIT_FAILED, {"sink": writer.name, "reason": describe(error)})
        else:
            _logger.warning("%s: the audit log is written there again; %d events lost", writer.name, writer.dropped)
            self._put(Event.AUDIT_RECOVERED, {"sink": writer.name, "dropped": writer.dropped})
