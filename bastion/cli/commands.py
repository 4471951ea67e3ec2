"""bastion commands: what was typed and run."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from bastion.audit.search import CommandRow, Filters, Search
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
from bastion.cli.viewer import look
from bastion.cli.when import when
from bastion.config import Config, load_config
from bastion.model import Confidence

app = typer.Typer(no_args_is_help=True, help="The commands that were run in sessions.")
COLUMNS = [
    Column("time", whole=True),
    Column("user"),
    Column("container"),
    Column("session", whole=True),
    Column("at"),
    Column("confidence"),
    Column("command"),
]


@app.callback()
def commands() -> None:
    """The commands that were run in sessions."""


@app.command()
def search(
    user: User = None,
    app_name: App = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only in this session.")] = None,
    since: Since = None,
    until: Until = None,
    like: Annotated[str | None, typer.Option(metavar="TEXT", help="With this text in it, whatever its case.")] = None,
    regex: Annotated[str | None, typer.Option(metavar="REGEX", help="That fit this regular expression.")] = None,
    confidence: Annotated[list[Confidence] | None, typer.Option(help="Only these; may be given again.")] = None,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Search the commands of all sessions, the latest first. The regular expressions are those of the database:
    PostgreSQL's, or Python's on SQLite."""
    wanted = Filters(user=user, app=app_name, session=session, since=when(since), until=when(until))
    rows = asyncio.run(_search(load_config(config), wanted, like, regex, confidence or [], before, limit))
    if as_json or as_csv:
        print_rows(rows, CommandRow, json_lines=as_json)
    else:
        print_table(COLUMNS, [_cells(row) for row in rows])
    if rows:
        tell_of_more(len(rows), limit, rows[-1].command_id)


async def _search(
    config: Config,
    wanted: Filters,
    like: str | None,
    regex: str | None,
    confidence: Sequence[Confidence],
    before: str | None,
    limit: int,
) -> Sequence[CommandRow]:
    given = {"like": like, "regex": regex, "confidence": confidence or None}
    async with look(config, "commands", wanted, **given) as (engine, seen):
        return await Search(engine).commands(
            seen, like=like, regex=regex, confidence=confidence, before=before, limit=limit
        )


def _cells(row: CommandRow) -> Sequence[str]:
    confidence = f"{row.confidence}, degraded" if row.degraded else row.confidence
    began = moment(row.created_at)
    return began, row.user, row.address, row.session_id, position(row.at), confidence, row.content
