"""The command line: bastion serve, check-config, keys, users, sessions, commands, audit, db, play."""

import importlib
import importlib.metadata
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from bastion.errors import BastionError, printable

# A file of this folder each; commands with commands of their own are its `app`, the others its function of that name.
COMMANDS = ("serve", "check-config", "keys", "users", "sessions", "commands", "audit", "play", "db")


def command_line(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """With these commands. One alone starts in a third of the time, since what the others need is not imported."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a traceback with the values of variables could show secrets
    )
    app.callback()(bastion)
    app.command()(version)
    for name in commands:
        file = name.replace("-", "_")
        module = importlib.import_module(f"bastion.cli.{file}")
        if isinstance(own := getattr(module, "app", None), typer.Typer):
            app.add_typer(own, name=name)
        else:
            app.command()(getattr(module, file))
    return app


def version() -> None:
    """Print the version."""
    typer.echo(f"bastion {importlib.metadata.version('bastion')}")


def _version_option(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


def bastion(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version_option, is_eager=True)
    ] = False,
) -> None:
    """An SSH bastion in front of containers: ssh alice+web.worker.1@bastion"""


def main() -> None:
    """Run the command line; what went wrong on purpose is a sentence on stderr and status 1, no traceback."""
    try:
        named = [name for name in sys.argv[1:2] if name in COMMANDS]
        command_line(named or COMMANDS)(prog_name="bastion")
    except BastionError as error:
        for line in str(error).split("\n"):
            typer.echo(printable(line), err=True)
        sys.exit(1)
