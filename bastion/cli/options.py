"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bastion.errors import BastionError

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

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


def read_password(from_stdin: bool) -> str:
    """Never from the command line, which all of the machine's users can see."""
    if not from_stdin:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Password, again"))
    try:
        return sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BastionError("the password on standard input is not UTF-8") from None
