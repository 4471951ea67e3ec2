"""The command line: bastion serve, check-config, keys, users, sessions, commands, audit, db, play."""

import importlib.metadata
import sys
from typing import Annotated

import typer

from bastion.cli import audit, commands, db, keys, sessions, users
from bastion.cli.check_config import check_config
from bastion.cli.export import export
from bastion.cli.grep import grep
from bastion.cli.play import play, watch
from bastion.cli.recording_keys import recordings as recording_keys
from bastion.cli.serve import serve
from bastion.errors import BastionError, printable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with the values of variables could show secrets
)
app.command()(serve)
app.command()(check_config)
app.add_typer(keys.app, name="keys")
keys.app.command("recordings")(recording_keys)
app.add_typer(users.app, name="users")
app.add_typer(sessions.app, name="sessions")
sessions.app.command()(watch)
sessions.app.command()(export)
sessions.app.command()(grep)
app.add_typer(audit.app, name="audit")
app.add_typer(commands.app, name="commands")
app.command()(play)
app.add_typer(db.app, name="db")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"bastion {importlib.metadata.version('bastion')}")


def _version_option(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def bastion(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version_option, is_eager=True)
    ] = False,
) -> None:
    """An SSH bastion in front of containers: ssh alice+web.worker.1@bastion"""


def main() -> None:
    """Run the command line; what went wrong on purpose is a sentence on stderr and status 1, no traceback."""
    try:
        app(prog_name="bastion")
    except BastionError as error:
        for line in str(error).split("\n"):
            typer.echo(printable(line), err=True)
        sys.exit(1)
