"""The only wiring: configuration -> running -> drained."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import uvloop

from bastion.access.console import Console
from bastion.audit.database import create_engine, upgrade
from bastion.audit.enrolments import Enrolments
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.audit.rotation import rotate
from bastion.audit.sessions import SessionRows
from bastion.auth.authenticator import Authenticator
from bastion.auth.throttle import Throttle
from bastion.auth.totp import Totp
from bastion.config import Config
from bastion.containers.directory import Directory
from bastion.containers.engine import Engine
from bastion.containers.processes import Reaper
from bastion.control.lock import lock, make_folder
from bastion.control.server import ControlServer
from bastion.errors import ConfigError, Unavailable
from bastion.model import Address, Container, ContainerState
from bastion.neighbours import learning
from bastion.recording.store import RecordingStore
from bastion.session.destination import owned_apps
from bastion.session.rooms import Rooms
from bastion.session.sessions import Sessions
from bastion.ssh import host_keys
from bastion.ssh.listener import Listener

_logger = logging.getLogger(__name__)

DRAIN_GRACE = 10.0  # seconds for sessions to be ended with a sentence, and for their processes to be hung up


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises ConfigError where it can not start."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("asyncssh", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with config.naming_lines(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    """Start what others stand on first; each part is ended, whatever happens to those above it."""
    stop, reopen = asyncio.Event(), asyncio.Event()
    for number, asked in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reopen)):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    keys = host_keys.load(config.ssh.host_keys)
    make_folder(config.state_folder)
    async with contextlib.AsyncExitStack() as parts:
        if not parts.enter_context(lock(config.state_folder)):
            raise ConfigError([f"state_folder: {config.state_folder} is in use: this bastion runs already"])
        await upgrade(config.database)
        database = create_engine(config.database)
        parts.push_async_callback(database.dispose)
        log = await parts.enter_async_context(AuditLog(config.audit, config.bastion_id, database, config.state_folder))
        for work in (rotate(config.audit), _reopen(log, reopen)):
            parts.push_async_callback(_end, asyncio.create_task(work))
        rows = await parts.enter_async_context(SessionRows(database, config.bastion_id, config.audit.mode == "strict"))
        throttle = Throttle(config.ssh.penalties)
        await parts.enter_async_context(learning(throttle, config, database))
        totp = Totp(config.auth.totp, Enrolments(database)) if config.auth.totp is not None else None
        authenticator = Authenticator(config.auth, throttle, totp)
        parts.push_async_callback(authenticator.close)
        recordings = RecordingStore(config.recording)
        parts.push_async_callback(recordings.close)
        engines = {section.name: Engine(section) for section in config.engines}
        for engine in engines.values():
            parts.push_async_callback(engine.close)
        directory = Directory(list(engines.values()), config.access.protected, config.guarded_folders)
        parts.push_async_callback(directory.close)
        await directory.start()
        reaper = Reaper()
        parts.push_async_callback(reaper.close, DRAIN_GRACE)
        await _close_lost(rows, log, recordings, reaper, engines, directory)
        parts.push_async_callback(_end, asyncio.create_task(recordings.compress_left(rows.over)))
        lain = config.access.lain
        console = Console(lain, lain.console) if lain is not None and lain.console is not None else None
        if console is not None:
            parts.push_async_callback(console.close)
        commands = ThreadPoolExecutor(1, "commands")
        parts.callback(commands.shutdown, wait=False)
        sessions = Sessions(Rooms(config.access, console, directory, engines, reaper, recordings, commands, rows))
        await parts.enter_async_context(
            ControlServer(config.state_folder, log, sessions, lambda who: owned_apps(who, directory, config.access))
        )
        listener = Listener(config.ssh, keys, authenticator, sessions, throttle, log)
        parts.push_async_callback(listener.close)
        parts.push_async_callback(sessions.close, DRAIN_GRACE)
        try:
            await listener.start()
        except OSError as error:
            raise ConfigError([error.strerror or str(error)]) from None
        _logger.info("serving on %s", ", ".join(config.ssh.listen))
        await stop.wait()
        _logger.info("shutting down")
        await listener.stop_accepting()


async def _reopen(log: AuditLog, asked: asyncio.Event) -> None:
    """SIGHUP, as logrotate sends it: with the next event the log goes on in the file that is at its path."""
    while await asked.wait():
        asked.clear()
        with contextlib.suppress(Unavailable):
            await log.emit(Event.AUDIT_REOPENED)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _close_lost(
    rows: SessionRows,
    log: AuditLog,
    recordings: RecordingStore,
    reaper: Reaper,
    engines: Mapping[str, Engine],
    directory: Directory,
) -> None:
    """Say of the sessions that a crash cut short that they are lost, and end what they left running.

    Their recordings end where they end now: from here on the log knows. ConfigError.
    """
    if not await log.settle():  # what ended before the crash is not to be taken for lost
        raise ConfigError(["database.url: what waits in state_folder for the database can not be written"])
    try:
        known = {container.id: container for container in directory.all()}
    except Unavailable:
        known = {}  # the reaper waits for the engine
    for row in await rows.close_lost():
        address = Address(row.app_name, row.proc_name, row.instance_no)
        verdict = await recordings.close_lost(row.session_id)
        await log.emit(
            Event.SESSION_END,
            connection_id=row.connection_id,
            session_id=row.session_id,
            user=row.user,
            source_ip=row.source_ip,
            address=str(address),
            container_id=row.container_id,
            engine=row.engine,
            status=row.status,
            exit_status=None,
            detail=f"the recording was {verdict.finding}" if verdict and verdict.finding else None,
            recording=asdict(verdict.end) if verdict else None,
        )
        if row.engine in engines:
            container = known.get(row.container_id) or Container(
                row.engine, row.container_id, row.container_id, "", {}, ContainerState.STOPPED, address
            )
            reaper.reap(engines[row.engine], container, row.session_id)
