"""The command line's end: asks the bastion that runs, and where none does, writes into the log itself."""

import asyncio
import time
from pathlib import Path
from typing import Any

from bastion.audit.database import create_engine
from bastion.audit.events import Event, json_value
from bastion.audit.log import AuditLog
from bastion.config import Config
from bastion.control.lock import as_owner_of, lock, make_folder
from bastion.control.protocol import LINE_LIMIT, decode, encode, socket_in
from bastion.errors import BastionError, printable

WAIT = 15.0  # seconds for a bastion that starts or ends just now
RETRY = 0.1  # seconds


async def tell(config: Config, event: Event, **fields: object) -> None:
    """Put an event into the log of the bastion of this configuration: returns when the log has it.

    By the bastion that runs, since the log has one writer; where none runs, this process is the writer meanwhile.
    BastionError where that fails: what is not in the log must not be shown.
    """
    make_folder(config.state_folder)
    written = {name: json_value(value) for name, value in fields.items()}  # a time, say, as the log has it
    request: dict[str, object] = {"do": "tell", "event": event.value, "fields": written}
    deadline = time.monotonic() + WAIT
    while True:
        answer = await _ask(config.state_folder, request, deadline)
        if answer is not None:
            return
        with as_owner_of(config.state_folder), lock(config.state_folder) as mine:
            if mine:
                await _append(config, event, fields)
                return
        await _wait(deadline)


async def kill(config: Config, session_id: str, *, by: str, why: str) -> None:
    """End a session of the bastion that runs; returns when it is over. BastionError."""
    await _running(config, {"do": "kill", "session_id": session_id, "by": by, "why": why})


async def owned_apps(config: Config, user: str, groups: frozenset[str]) -> frozenset[str]:
    """The apps all of whose containers this user may enter, as the bastion that runs knows them. BastionError."""
    answer = await _running(config, {"do": "apps", "user": user, "groups": sorted(groups)})
    return frozenset(answer["apps"])


async def _running(config: Config, request: dict[str, object]) -> dict[str, Any]:
    answer = await _ask(config.state_folder, request, time.monotonic() + WAIT)
    if answer is None:
        raise BastionError(f"no bastion runs here that could be asked (state_folder: {_shown(config.state_folder)})")
    return answer


async def _ask(folder: Path, request: dict[str, object], deadline: float) -> dict[str, Any] | None:
    """The bastion's answer; None where none runs. Raises BastionError with what it says against it."""
    try:
        with socket_in(folder) as (connecting, path):
            await asyncio.get_running_loop().sock_connect(connecting, path)
        reader, writer = await asyncio.open_unix_connection(sock=connecting, limit=LINE_LIMIT)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise BastionError(f"the bastion can not be asked: {_shown(folder)}: {error.strerror}") from None
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
            writer.write(encode(request))
            answer = decode(await reader.readline())
    except (OSError, TimeoutError, ValueError):
        raise BastionError("the bastion that runs did not answer; was it done? Its log knows") from None
    finally:
        writer.close()
    if "error" in answer:
        raise BastionError(str(answer["error"]))
    return answer


async def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise BastionError(f"a bastion runs and does not answer for {WAIT:.0f} seconds")
    await asyncio.sleep(RETRY)


async def _append(config: Config, event: Event, fields: dict[str, object]) -> None:
    database = create_engine(config.database)
    try:
        async with AuditLog(config.audit, config.bastion_id, database, config.state_folder) as log:
            await log.write(event, fields)
    finally:
        await database.dispose()


def _shown(folder: Path) -> str:
    return printable(str(folder))
