"""bastion serve: run until told to stop."""

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config


def serve(config: ConfigFile = CONFIG_FILE) -> None:
    """Serve SSH until SIGTERM or SIGINT, which let running sessions end first."""
    from bastion.app import run  # noqa: PLC0415 - everything else is loaded only by what serves

    raise typer.Exit(run(load_config(config)))
