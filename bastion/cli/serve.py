"""bastion serve: run until told to stop."""

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config


def serve(config: ConfigFile = CONFIG_FILE) -> None:
    """Serve SSH until SIGTERM or SIGINT, which end running sessions with a sentence. SIGHUP reopens the log's file."""
    loaded = load_config(config)
    from bastion.app import run  # noqa: PLC0415 - all the rooms: only what serves waits until they are loaded

    raise typer.Exit(run(loaded))
