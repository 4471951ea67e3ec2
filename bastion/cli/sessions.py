"""bastion sessions: who was where."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from bastion.audit.search import CommandRow, Filters, Search
from bastion.audit.sessions import SessionRow
from bastion.audit.tables import ACTIVE
from bastion.cli.export import export
from bastion.cli.grep import grep
from bastion.cli.listing import (
    App,
    AsCsv,
    AsJson,
    Before,
    Column,
    Limit,
    Since,
    Until,
    User,
    moment,
    position,
    print_rows,
    print_table,
    tell_of_more,
)
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.play import watch
from bastion.cli.prune import prune
from bastion.cli.viewer import auditor, database, look
from bastion.cli.when import when
from bastion.config import Config, load_config
from bastion.control import client
from bastion.errors import BastionError, printable
from bastion.model import Address

app = typer.Typer(no_args_is_help=True, help="What was run, by whom, and where.")
SESSION_ID = typer.Argument(help="The session's id, or as much of its beginning as is unique.")
COLUMNS = [Column("session", whole=True), *map(Column, ("user", "from", "container", "began", "ended", "status"))]
SHOWN_COMMANDS = 1000  # of one session


@app.callback()
def sessions() -> None:
    """What was run, by whom, and where."""


@app.command(name="list")
def list_(
    user: User = None,
    app_name: App = None,
    since: Since = None,
    until: Until = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that run now.")] = False,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """List sessions, the latest first."""
    wanted = Filters(user=user, app=app_name, since=when(since), until=when(until))
    rows = asyncio.run(_list(load_config(config), wanted, active, before, limit))
    if as_json or as_csv:
        print_rows(rows, SessionRow, json_lines=as_json)
    else:
        print_table([*COLUMNS, Column("command")], [_cells(row) for row in rows])
    if rows:
        tell_of_more(len(rows), limit, rows[-1].session_id)


async def _list(config: Config, wanted: Filters, active: bool, before: str | None, limit: int) -> Sequence[SessionRow]:
    async with look(config, "sessions", wanted, active=active or None) as (engine, seen):
        return await Search(engine).sessions(seen, active=active, before=before, limit=limit)


@app.command()
def show(
    session_id: Annotated[str, SESSION_ID],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, its commands in it.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Show one session and the commands that were run in it."""
    row, commands = asyncio.run(_show(load_config(config), session_id))
    if as_json:
        values = asdict(row) | {"commands": [asdict(command) for command in commands]}
        typer.echo(json.dumps(values, default=moment))
        return
    ended = moment(row.ended_at) if row.ended_at is not None else ""
    for name, value in {
        "session": row.session_id,
        "user": f"{row.user} from {row.source_ip}",
        "container": f"{_address(row)}  {row.container_id[:12]} of engine {row.engine}",
        "bastion": row.bastion_id,
        "began": moment(row.created_at),
        "ended": f"{ended}  {row.status}".strip(),
        "command": row.command if row.command is not None else "(shell)",
    }.items():
        typer.echo(f"{name:<11}{printable(value)}")
    if commands:
        typer.echo()
        columns = [Column("at"), Column("confidence"), Column("command")]
        print_table(columns, [(position(one.at), one.confidence, one.content) for one in commands])
    if len(commands) == SHOWN_COMMANDS:
        typer.echo(f"These are the last: bastion commands search --session {row.session_id} has all", err=True)


async def _show(config: Config, session_id: str) -> tuple[SessionRow, Sequence[CommandRow]]:
    async with look(config, "sessions", Filters(session=session_id)) as (engine, seen):
        search = Search(engine)
        row = await search.session(session_id, seen.apps)
        wanted = Filters(session=row.session_id, apps=seen.apps)
        return row, list(reversed(await search.commands(wanted, limit=SHOWN_COMMANDS)))


@app.command()
def kill(
    session_id: Annotated[str, SESSION_ID],
    why: Annotated[str, typer.Option(help="The user reads it, and the audit log has it.")],
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """End a running session, with a sentence to its user that says why."""
    row = asyncio.run(_kill(load_config(config), session_id, why))
    typer.echo(f"{row.session_id} is ended: {printable(row.user)} in {printable(_address(row))}")


async def _kill(config: Config, session_id: str, why: str) -> SessionRow:
    who = await auditor(config)
    async with database(config) as engine:
        row = await Search(engine).session(session_id)
    if row.status != ACTIVE:
        raise BastionError(f"session {row.session_id} is over already: {row.status}")
    if row.bastion_id != config.bastion_id:
        raise BastionError(f"session {row.session_id} runs on the bastion {row.bastion_id}; end it from there")
    await client.kill(config, row.session_id, by=who.name, why=why)
    return row


def _cells(row: SessionRow) -> Sequence[str]:
    ended = moment(row.ended_at) if row.ended_at is not None else ""
    command = row.command if row.command is not None else "(shell)"
    return row.session_id, row.user, row.source_ip, _address(row), moment(row.created_at), ended, row.status, command


def _address(row: SessionRow) -> str:
    return str(Address(row.app_name, row.proc_name, row.instance_no))


app.command()(watch)
app.command()(export)
app.command()(grep)
app.command()(prune)
