"""`bastion sessions grep PATTERN`: what was to be read on the screens of recorded sessions."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit.events import Event
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.play import ends_like_a_program
from bastion.cli.recordings import Identity, Look, make_terminal, may_see
from bastion.cli.viewer import viewer
from bastion.config import Config, load_config
from bastion.control.client import tell
from bastion.errors import BastionError, printable
from bastion.recording.position import format_position
from bastion.recording.rendering import rendered
from bastion.recording.sealing import read_identities
from bastion.recording.store import RecordingStore


def grep(
    pattern: Annotated[str, typer.Argument(help="A regular expression of Python's.")],
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Capitals or not.")] = False,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only this user's sessions.")] = None,
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
    loaded = load_config(config)
    identities = read_identities(identity) if identity else []
    status = 1
    with ends_like_a_program():
        for path in asyncio.run(_allowed(loaded, {"pattern": pattern, "user": user})):
            try:
                if _search(Look(loaded, path, identities), searched, user) and status != 2:
                    status = 0
            except BastionError as error:
                typer.echo(printable(f"{path.stem}: {error}"), err=True)
                status = 2
    raise typer.Exit(status)


def _search(looked: Look, searched: re.Pattern[str], user: str | None) -> bool:
    if user is not None and looked.header.user != user:
        return False
    found = False
    with looked.reading():
        for line in rendered(looked.open(), make_terminal):
            if searched.search(line.text):
                found = True
                typer.echo(f"{looked.path.stem} @ {format_position(line.time)}  {printable(line.text)}")
    return found


async def _allowed(config: Config, filters: dict[str, object]) -> Sequence[Path]:
    """The recordings that this person may see, once the audit log knows that they search them."""
    who = await viewer(config)
    given = {name: value for name, value in filters.items() if value is not None}
    await tell(config, Event.AUDIT_SEARCHED, user=who.name, what="recordings", filters=given)
    paths = RecordingStore(config.recording).all()
    return [path for path in paths if await may_see(config, who, path)]
