"""The bastion's end: writes into its log what the command line has to say, and does what it asks for."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.control.protocol import LINE_LIMIT, NAME, decode, encode, socket_in
from bastion.errors import BastionError, ConfigError, printable
from bastion.model import Identity
from bastion.session.sessions import Sessions

REQUEST_LIMIT = 10.0  # seconds that a request may take to come, and its answer to go
TOLD = {  # what the command line may put into the log
    event.value: event
    for event in (
        Event.RECORDING_VIEWED,
        Event.RECORDING_PRUNED,
        Event.AUDIT_SEARCHED,
        Event.USER_SECOND_FACTOR,
        Event.CERTIFICATE_ISSUED,
    )
}
_logger = logging.getLogger(__name__)


class ControlServer:
    """A unix socket in the state folder that only the bastion's account and root can open.

    `async with` opens and closes it; the caller holds the folder's lock. Raises ConfigError.
    """

    def __init__(
        self, folder: Path, log: AuditLog, sessions: Sessions, owned_apps: Callable[[Identity], Collection[str]]
    ) -> None:
        self._folder = folder
        self._log = log
        self._sessions = sessions
        self._owned_apps = owned_apps
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            with socket_in(self._folder) as (listening, path):
                (self._folder / NAME).unlink(missing_ok=True)  # a crash left it
                before = os.umask(0o177)
                try:
                    listening.bind(path)
                finally:
                    os.umask(before)
            self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=LINE_LIMIT)
        except OSError as error:
            where = printable(str(self._folder / NAME))
            raise ConfigError([f"state_folder: {where} can not be made: {error.strerror}"]) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        (self._folder / NAME).unlink(missing_ok=True)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_LIMIT):
                answer = await self._answer(await reader.readline())
                writer.write(encode(answer))
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: the line is longer than the limit
            _logger.warning("control: a request was given up: %s", printable(str(error)) or type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            return await self._do(decode(line))
        except BastionError as error:
            return {"error": str(error)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            return {"error": f"the bastion does not understand the request: {printable(repr(error))}"}

    async def _do(self, request: dict[str, Any]) -> dict[str, object]:
        match request.get("do"):
            case "tell":
                await self._log.write(TOLD[request["event"]], dict(request["fields"]))
                return {}
            case "kill":
                await self._sessions.kill(request["session_id"], by=request["by"], why=request["why"])
                return {}
            case "apps":
                who = Identity(request["user"], "command line", frozenset(request["groups"]))
                return {"apps": sorted(self._owned_apps(who))}
            case other:
                raise ValueError(f"do: {other!r}")
