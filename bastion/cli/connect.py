"""Every server that the configuration names, tried: what `bastion check-config --connect` prints."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url

from bastion.access.console import Console
from bastion.audit import roles
from bastion.audit.database import create_engine, describe, place
from bastion.auth.authenticator import methods
from bastion.config import Config, Database
from bastion.containers.engine import Engine
from bastion.errors import Refusal, printable
from bastion.remote.probe import Probe

SECONDS = 30.0  # for one server, whatever its own time limit


async def tried(config: Config) -> AsyncIterator[tuple[bool, str, str]]:
    """For each server: did it do what it is for, its kind, and what was found. Raises ConfigError."""
    sources = methods(config.auth)
    lain = config.access.lain
    console = Console(lain, lain.console) if lain is not None and lain.console is not None else None
    engines = [Engine(section) for section in config.engines]
    asked: list[asyncio.Task[tuple[bool, str, str]]] = []
    try:
        probes = [probe for source in sources for probe in source.probes()]
        probes += [console.probe()] if console is not None else []
        probes += [_engine(engine) for engine in engines] + [_database(config.database)]
        asked = [asyncio.create_task(_tried(probe)) for probe in probes]
        for task in asked:
            yield await task
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        closings = [part.close() for part in sources] + [part.close() for part in engines]
        closings += [console.close()] if console is not None else []
        await asyncio.gather(*closings)


async def _tried(probe: Probe) -> tuple[bool, str, str]:
    start = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS):
            found = await probe.ask()
    except TimeoutError:
        return False, probe.kind, f"{probe.server}: no answer within {SECONDS:g} s"
    except Exception as error:  # whatever it is, it is what an administrator wants to know
        said = error.log_text if isinstance(error, Refusal) else describe(error)
        return False, probe.kind, printable(f"{probe.server}: {said}")
    return True, probe.kind, printable(f"{probe.server}: {found} ({(time.monotonic() - start) * 1000:.0f} ms)")


def _engine(engine: Engine) -> Probe:
    async def ask() -> str:
        version = await engine.call(lambda client: client.version())
        containers = await engine.call(lambda client: client.containers(all=True))
        return f"version {version.get('Version')}, API {version.get('ApiVersion')}, {len(containers)} containers"

    return Probe("engine", f"{engine.name} {engine.section.url}", ask)


def _database(config: Database) -> Probe:
    async def ask() -> str:
        engine = create_engine(config)
        try:
            async with engine.connect() as connection:
                if not await connection.run_sync(lambda there: inspect(there).has_table("alembic_version")):
                    return "no tables yet: bastion db upgrade makes them"
                version = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
                excess = await connection.run_sync(_excess)
        finally:
            await engine.dispose()
        return f"tables of version {version}{excess}"

    async def nothing_yet() -> str:
        return "not there yet: the bastion makes it when it starts"

    url = make_url(config.url.get_secret_value())
    missing = url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()
    return Probe("database", place(url), nothing_yet if missing else ask)


def _excess(connection: Connection) -> str:
    """What the role that serves may do beyond what it needs. It is no error: the bastion serves all the same."""
    if connection.dialect.name != "postgresql":
        return ""  # who serves owns the file
    excess = roles.excess(connection, roles.current(connection))
    more = "; warning: the role may do more than serving needs (bastion db init sets one up that may not)"
    return f"{more}: {'; '.join(excess)}" if excess else ""
