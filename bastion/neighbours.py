"""What was seen before the start, and what other bastions of this database see, counts for the throttle here too."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.events import Event
from bastion.audit.search import Filters
from bastion.audit.tail import Tail
from bastion.auth.throttle import CAPACITY, FAMILIAR, Offence, Throttle
from bastion.config import Config
from bastion.errors import Reason, Unavailable, printable

_GUESSES = {Reason.WRONG_CREDENTIALS, Reason.UNKNOWN_USER}
_logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def learning(throttle: Throttle, config: Config, database: AsyncEngine) -> AsyncIterator[None]:
    """Tell `throttle` of the failures that still count, and of where users have signed in from lately.

    From then on, while the block runs, of what others write into PostgreSQL; nobody shares an SQLite.
    """
    now = datetime.now(UTC)
    signed_in = Tail(database, Filters(since=now - timedelta(seconds=FAMILIAR)), [Event.USER_LOGIN])
    failures = Tail(
        database,
        Filters(since=now - timedelta(seconds=2 * config.ssh.penalties.max)),
        [Event.USER_LOGIN, Event.USER_LOGIN_FAILED, Event.CONNECTION_CLOSE],
    )
    with contextlib.suppress(Unavailable):  # it is begun without
        for tail in (signed_in, failures):
            for line in await tail.last(CAPACITY):
                _learn(throttle, line, but_of=None)
    if database.dialect.name != "postgresql":
        yield
        return
    task = asyncio.create_task(_follow(throttle, failures, config.bastion_id), name="neighbours")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _follow(throttle: Throttle, tail: Tail, bastion_id: str) -> None:
    async for line in tail.follow():
        _learn(throttle, line, but_of=bastion_id)


def _learn(throttle: Throttle, line: str, *, but_of: str | None) -> None:
    """One event, if it is not of the bastion `but_of`, whose throttle has seen it happen."""
    try:
        event = json.loads(line)
        if event["bastion_id"] == but_of:
            return
        ago = (datetime.now(UTC) - datetime.fromisoformat(event["time"])).total_seconds()
        match event["event"]:
            case Event.USER_LOGIN:
                throttle.passed(event["user"], event["source_ip"], ago)
            case Event.USER_LOGIN_FAILED if event["reason"] in _GUESSES and event["method"] != "publickey":
                throttle.failed(event["user"], ago)
            case Event.CONNECTION_CLOSE if event.get("offence"):
                throttle.offended(event["source_ip"], Offence(event["offence"]), ago)
    except (ValueError, KeyError, TypeError) as error:  # of another version, or of whoever can write there
        _logger.warning("an event in the database is none: %s", printable(repr(error)))
