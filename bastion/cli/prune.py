"""`bastion sessions prune`: recordings that are old enough are removed; the log keeps where each of them ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit.events import Event
from bastion.audit.files import files, lines_of
from bastion.audit.recorded import recorded
from bastion.audit.search import Search
from bastion.audit.tables import ACTIVE
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.viewer import auditor, database
from bastion.cli.when import when
from bastion.config import Config, load_config
from bastion.control.client import tell
from bastion.errors import BastionError, Unavailable, printable
from bastion.recording.chain import End
from bastion.recording.files import newest, remove, session_of
from bastion.recording.integrity import verify
from bastion.recording.store import RecordingStore


def prune(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="90d, 12w, or a date: what ended before that.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Remove recordings by policy, and leave a tombstone of each in the audit log, so that it still verifies.

    Rows and events stay. A recording that is not as it was written stays too: the status is then 1.
    """
    before = when(older_than)
    assert before is not None
    kept = asyncio.run(_prune(load_config(config), before, dry_run=dry_run))
    raise typer.Exit(1 if kept else 0)


async def _prune(config: Config, before: datetime, *, dry_run: bool) -> int:
    """How many were kept because something is wrong with them."""
    who = await auditor(config)
    remembered = await asyncio.to_thread(_remembered, config)
    kept = 0
    async for path in _old(config, before):
        session_id = session_of(path)
        verdict = await asyncio.to_thread(verify, path, remembered.get(session_id))
        if verdict.finding is not None:
            kept += 1
            typer.echo(printable(f"{session_id} stays: {verdict.finding}"), err=True)
            continue
        if not dry_run:
            end = asdict(verdict.end)
            await tell(config, Event.RECORDING_PRUNED, user=who.name, session_id=session_id, recording=end)
            remove(path)
        typer.echo(printable(f"{session_id} {'would be' if dry_run else 'is'} removed"))
    return kept


def _remembered(config: Config) -> dict[str, End]:
    """Where recordings ended, as far as the log's files go back."""
    if config.audit.file is None:
        return {}
    said = recorded(line for path in files(config.audit.file) for line in lines_of(path))
    return {session_id: End(**one.end) for session_id, one in said.items() if one.end is not None}


async def _old(config: Config, before: datetime) -> AsyncIterator[Path]:
    """The oldest first; not those of sessions that run. Unavailable where the database can not tell."""
    async with database(config) as engine:
        search = Search(engine)
        for path in reversed(RecordingStore(config.recording).all()):
            if newest(path) >= before.timestamp():
                return
            try:
                if (await search.session(session_of(path))).status == ACTIVE:
                    continue
            except Unavailable:
                raise
            except BastionError:  # it has no row: nothing that runs
                pass
            yield path
