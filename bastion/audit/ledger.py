"""Where an entry gets its place in the chain, and is on record once write() returns: standard output."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from bastion.audit.chain import TORN, Chain
from bastion.audit.events import Entry, Event
from bastion.audit.sinks import append, whole
from bastion.audit.thread import Thread
from bastion.audit.verify import Finding

CLOSE_LIMIT = 1.0  # seconds for what is being written
PassOn = Callable[[Sequence[Entry]], None]


class Ledger:
    """Standard output as the log, where there is no file: each start begins a chain of its own."""

    name = "audit.stdout"

    def __init__(self, chain: Chain, pass_on: PassOn) -> None:
        self._chain = chain
        self._pass_on = pass_on  # called in the event loop with what is on record, each entry once and in order
        self._thread = Thread(self.name)
        self._torn = b""  # what is left of a line behind the last entry
        self._notes: list[Entry] = []  # what the log has to say about itself, in front of what comes
        self.findings: Sequence[Finding] = ()
        self._last: frozenset[object] = frozenset()  # ids of the latest entries

    async def open(self) -> None:
        """Find out where the log goes on. OSError; Touched where it must not."""
        await self._thread.call(self._open)

    def behind(self, number: int) -> Iterator[bytes]:
        """The lines of the entries behind that one, up to the last that open() has found: none can be read again."""
        return iter(())

    async def write(self, batch: Sequence[Entry]) -> int:
        """Returns how many of `batch` are on record. OSError when none is; Touched."""
        loop = asyncio.get_running_loop()
        return await self._thread.call(lambda: self._commit(batch, loop))

    async def close(self) -> None:
        """Let go of it; a write that hangs keeps it until it ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._thread.call(self._shut)
        self._thread.end(self._shut)

    def _commit(self, batch: Sequence[Entry], loop: asyncio.AbstractEventLoop) -> int:
        descriptor = self._descriptor()
        late = 0  # written after all, by a write that was given up because it took too long
        while late < len(batch) and batch[late].fields["id"] in self._last:
            late += 1
        if late == len(batch):
            return late
        notes = self._notes
        made, ends = self._chain.extend([*notes, *batch[late:]], self._torn)
        mark = self._mark()
        lines = [one.line.encode() + b"\n" for one in made]
        written, error = append(descriptor, mark + b"".join(lines))
        stored = whole(lines, written - len(mark))
        self._wrote(descriptor, written, sync=stored > 0)
        if stored:
            self._torn = b""
            self._chain.advance(made[:stored])
            self._notes = notes[ends[stored - 1] :]
            self._last = frozenset(one.fields["id"] for one in made[:stored])
            self._advanced()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._pass_on, made[:stored])
        end = len(mark) + sum(map(len, lines[:stored])) if stored else 0
        self._tear((mark + b"".join(lines))[end:written])
        count = late + (max(0, ends[stored - 1] - len(notes)) if stored else 0)
        if error is not None and not count:
            raise error
        return count

    # ---- what a file does otherwise ----

    def _open(self) -> None:
        self._notes = [self._chain.note(Event.AUDIT_VERIFIED, begins=True, entries=0, findings=[])]

    def _descriptor(self) -> int:
        return 1

    def _mark(self) -> bytes:
        """What has to be written to end a torn line."""
        return TORN if self._torn else b""

    def _tear(self, left: bytes) -> None:
        self._torn += left

    def _wrote(self, descriptor: int, written: int, sync: bool) -> None:
        """Make it durable, and remember where it ends. OSError."""

    def _advanced(self) -> None:
        """The chain's tip is another one now."""

    def _shut(self) -> None:
        """Let go of what is open."""
