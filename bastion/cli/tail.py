"""bastion audit tail: what happens, as it happens."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from bastion.audit.search import Filters
from bastion.audit.tail import Tail
from bastion.cli.listing import App, Since, Until, User
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.viewer import look
from bastion.cli.when import when
from bastion.config import Config, load_config
from bastion.errors import printable

IN_FRONT = ("time", "event", "user", "address", "session_id")
# what tells a person nothing that the others do not
LEFT_OUT = {*IN_FRONT, "id", "bastion_id", "seq", "prev", "connection_id", "source_port", "container_id", "engine"}


def tail(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many of those that are there.")] = 10,
    event: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these, such as session.*; may be given again.")
    ] = None,
    user: User = None,
    app_name: App = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only of this session.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: Annotated[bool, typer.Option("--json", help="As they are in the log: one JSON object a line.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Show the last events, and with -f those that come, of all bastions that share the database."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    wanted = Filters(user=user, app=app_name, session=session, since=when(since), until=when(until))
    try:
        asyncio.run(_tail(load_config(config), wanted, event or [], lines, follow, as_json))
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `bastion audit tail | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        raise typer.Exit(128 + signal.SIGPIPE) from None


async def _tail(config: Config, wanted: Filters, names: list[str], count: int, follow: bool, as_json: bool) -> None:
    async with look(config, "events", wanted, event=names or None, follow=follow or None) as (engine, seen):
        followed = Tail(engine, seen, names)
        for line in await followed.last(count):
            _print(line, as_json)
        if follow:
            async with contextlib.aclosing(followed.follow()) as coming:
                async for line in coming:
                    _print(line, as_json)


def _print(line: str, as_json: bool) -> None:
    """JSON of the log is printable ASCII."""
    sys.stdout.write(f"{line if as_json else _for_people(line)}\n")
    sys.stdout.flush()


def _for_people(line: str) -> str:
    fields = json.loads(line)
    front = [str(fields[name]) for name in IN_FRONT if fields.get(name) is not None]
    front[0] = f"{front[0][:19]}Z"  # no fractions
    rest = [f"{name}={_value(value)}" for name, value in fields.items() if name not in LEFT_OUT and value is not None]
    text = printable("  ".join([*front, *rest]))
    return text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
