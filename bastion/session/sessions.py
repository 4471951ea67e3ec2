"""All sessions that run: started here, known here, and ended here at shutdown."""

import asyncio

from bastion.audit.log import BoundLog
from bastion.errors import BastionError, Reason, Refusal, printable
from bastion.model import Address, Identity
from bastion.session.client import Client, Request
from bastion.session.destination import decisions
from bastion.session.outcome import Outcome, Status
from bastion.session.rooms import Rooms
from bastion.session.session import Session

KILL_LIMIT = 5.0  # seconds that the end of a session is waited for


class Sessions:
    """Owns a task for each session, until its end is logged."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._tasks: dict[asyncio.Task[None], Session] = {}
        self._closing = False

    def start(self, request: Request, client: Client, log: BoundLog) -> Session:
        session = Session(request, client, self._rooms, log)
        if self._closing:
            session.cut(_SHUTTING_DOWN)
        task = asyncio.create_task(session.run(), name=f"session {session.id}")
        self._tasks[task] = session
        task.add_done_callback(self._tasks.pop)
        return session

    @property
    def recheck_interval(self) -> float | None:
        """Seconds."""
        return self._rooms.access.recheck_interval

    async def kill(self, session_id: str, *, by: str, why: str) -> None:
        """End one that runs; returns when it is over, or soon will be. BastionError where it does not run here."""
        for task, session in self._tasks.items():
            if session.id == session_id and session.row_begun:
                await session.kill(by, why)
                await asyncio.wait({task}, timeout=KILL_LIMIT)
                return
        raise BastionError(f"session {printable(session_id)} does not run on this bastion")

    async def want_second_factor(self, identity: Identity, address: Address | None) -> bool:
        """Is there a container that they may enter by this address, with a second factor only? Yes, if in doubt."""
        directory = self._rooms.directory
        try:
            candidates = directory.all() if address is None else directory.find(address)
            decided = await decisions(identity, candidates, self._rooms)
        except Refusal:
            return True
        return any(decision.lacks_second_factor for _, decision in decided)

    async def close(self, grace: float) -> None:
        """End them all with a sentence; after `grace` seconds without waiting for their last words."""
        self._closing = True
        for session in self._tasks.values():
            session.cut(_SHUTTING_DOWN)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


_SHUTTING_DOWN = Outcome(
    Status.CUT, reason=Reason.SHUTTING_DOWN, sentence="The bastion is shutting down; please connect again later."
)
