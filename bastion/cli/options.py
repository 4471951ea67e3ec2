"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="BASTION_CONFIG",
        help="The configuration; config.example.yaml explains every option.",
    ),
]
CONFIG_FILE = Path("/etc/bastion/config.yaml")
