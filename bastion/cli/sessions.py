"""bastion sessions: who was where."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bastion.audit.database import create_engine
from bastion.audit.sessions import SessionRow, SessionRows
from bastion.audit.tables import ACTIVE
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.viewer import auditor, look
from bastion.config import Config, load_config
from bastion.control import client
from bastion.errors import BastionError, printable
from bastion.model import Address

app = typer.Typer(no_args_is_help=True, help="What was run, by whom, and where.")


@app.callback()
def sessions() -> None:
    """What was run, by whom, and where."""


@app.command(name="list")
def list_(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only this user's.")] = None,
    app_name: Annotated[str | None, typer.Option("--app", metavar="APP", help="Only in this app.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that run now.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with every column.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """List sessions, the latest first."""
    rows = asyncio.run(_rows(load_config(config), user, app_name, active, limit))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(asdict(row), default=_moment))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole lines
    console.print(_table(rows, console.encoding))


@app.command()
def kill(
    session_id: Annotated[str, typer.Argument(help="The session's id, or as much of its beginning as is unique.")],
    why: Annotated[str, typer.Option(help="The user reads it, and the audit log has it.")],
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """End a running session, with a sentence to its user that says why."""
    row = asyncio.run(_kill(load_config(config), session_id, why))
    typer.echo(f"{row.session_id} is ended: {printable(row.user)} in {printable(_address(row))}")


async def _kill(config: Config, session_id: str, why: str) -> SessionRow:
    who = await auditor(config)
    engine = create_engine(config.database)
    try:
        row = await SessionRows(engine, config.bastion_id).find(session_id)
    finally:
        await engine.dispose()
    if row.status != ACTIVE:
        raise BastionError(f"session {row.session_id} is over already: {row.status}")
    if row.bastion_id != config.bastion_id:
        raise BastionError(f"session {row.session_id} runs on the bastion {row.bastion_id}; end it from there")
    await client.kill(config, row.session_id, by=who.name, why=why)
    return row


async def _rows(
    config: Config, user: str | None, app_name: str | None, active: bool, limit: int
) -> Sequence[SessionRow]:
    who = await look(config, "sessions", {"user": user, "app": app_name, "active": active or None})
    engine = create_engine(config.database)
    try:
        rows = SessionRows(engine, config.bastion_id)
        return await rows.list(user=user, app=app_name, apps=who.apps, active=active, limit=limit)
    finally:
        await engine.dispose()


def _table(rows: Sequence[SessionRow], encoding: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("session", "user", "from", "container", "began", "ended", "status", "command"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "session")
    for row in rows:
        ended = _moment(row.ended_at) if row.ended_at is not None else ""
        command = row.command if row.command is not None else "(shell)"
        cells = (
            row.session_id,
            row.user,
            row.source_ip,
            _address(row),
            _moment(row.created_at),
            ended,
            row.status,
            command,
        )
        # Text, so that nothing is taken for markup; printable, so that nothing is taken for a terminal's commands.
        table.add_row(*(Text(printable(cell).encode(encoding, "backslashreplace").decode(encoding)) for cell in cells))
    return table


def _address(row: SessionRow) -> str:
    return str(Address(row.app_name, row.proc_name, row.instance_no))


def _moment(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
