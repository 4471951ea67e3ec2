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
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import Config, load_config
from bastion.errors import printable

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


async def _rows(
    config: Config, user: str | None, app_name: str | None, active: bool, limit: int
) -> Sequence[SessionRow]:
    engine = create_engine(config.database)
    try:
        rows = SessionRows(engine, config.bastion_id)
        return await rows.list(user=user, app=app_name, active=active, limit=limit)
    finally:
        await engine.dispose()


def _table(rows: Sequence[SessionRow], encoding: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("session", "user", "from", "container", "began", "ended", "status", "command"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "session")
    for row in rows:
        address = ".".join(str(part) for part in (row.app_name, row.proc_name, row.instance_no) if part is not None)
        ended = _moment(row.ended_at) if row.ended_at is not None else ""
        command = row.command if row.command is not None else "(shell)"
        cells = row.session_id, row.user, row.source_ip, address, _moment(row.created_at), ended, row.status, command
        # Text, so that nothing is taken for markup; printable, so that nothing is taken for a terminal's commands.
        table.add_row(*(Text(printable(cell).encode(encoding, "backslashreplace").decode(encoding)) for cell in cells))
    return table


def _moment(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
