"""`bastion sessions grep PATTERN`: what was to be read on the screens of recorded sessions."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit.search import Filters
from bastion.cli.listing import App, Since, Until, User
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.play import ends_like_a_program
from bastion.cli.recordings import Identity, Look, make_terminal, may_see
from bastion.cli.viewer import searching
from bastion.cli.when import when
from bastion.config import Config, load_config
from bastion.errors import BastionError, printable
from bastion.recording.asciicast import Header
from bastion.recording.position import format_position
from bastion.recording.rendering import rendered
from bastion.recording.sealing import read_identities
from bastion.recording.store import RecordingStore


def grep(
    pattern: Annotated[str, typer.Argument(help="A regular expression of Python's.")],
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Capitals or not.")] = False,
    user: User = None,
    app: App = None,
    since: Since = None,
    until: Until = None,
    identity: Identity = None,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Search what was to be read on the screens of all recorded sessions, the latest first.

    Each line that fits is printed as ID @ TIME, for bastion play ID --at TIME. The exit status is that of grep: 0 when
    something was found, 1 when nothing was, 2 when a recording could not be read.
    """
    try:
        searched = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise typer.BadParameter(f"no regular expression: {error}", param_hint="PATTERN") from None
    wanted = Filters(user=user, app=app, since=when(since), until=when(until))
    loaded = load_config(config)
    identities = read_identities(identity) if identity else []
    status = 1
    with ends_like_a_program():
        for path in asyncio.run(_allowed(loaded, pattern, wanted)):
            try:
                if _search(Look(loaded, path, identities), searched, wanted) and status != 2:
                    status = 0
            except BastionError as error:
                typer.echo(printable(f"{path.stem}: {error}"), err=True)
                status = 2
    raise typer.Exit(status)


def _search(looked: Look, searched: re.Pattern[str], wanted: Filters) -> bool:
    if not _is_wanted(looked.header, wanted):
        return False
    found = False
    with looked.reading():
        for line in rendered(looked.open(), make_terminal):
            if searched.search(line.text):
                found = True
                typer.echo(f"{looked.path.stem} @ {format_position(line.time)}  {printable(line.text)}")
    return found


def _is_wanted(header: Header, wanted: Filters) -> bool:
    """By the recording itself, whose session need not be in the database any more."""
    began = datetime.fromtimestamp(header.timestamp, UTC)
    app = header.address.rpartition("/")[2].rsplit(".", 2)[0]
    return (
        wanted.user in (None, header.user)
        and wanted.app in (None, app)
        and (wanted.since is None or began >= wanted.since)
        and (wanted.until is None or began < wanted.until)
    )


async def _allowed(config: Config, pattern: str, wanted: Filters) -> Sequence[Path]:
    """The recordings that this person may see, once the audit log knows that they search them."""
    who = await searching(config, "recordings", wanted, pattern=pattern)
    paths = RecordingStore(config.recording).all()
    return [path for path in paths if await may_see(config, who, path)]
