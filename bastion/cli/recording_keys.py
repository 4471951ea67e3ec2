"""`bastion keys recordings FILE`: a pair of keys, so that the bastion can write recordings that it can not read."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bastion.errors import BastionError, printable
from bastion.recording.sealing import generate


def recordings(
    file: Annotated[Path, typer.Argument(help="A new file for the private key.")],
) -> None:
    """Make a pair of keys for encrypted recordings, as age-keygen does, and print the public key.

    The public key goes into recording.recipients. The private one is for those who may see recordings, and has no
    place on the bastion's machine; without it, what is encrypted to it is lost.
    """
    private, public = generate()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as new:
            new.write(f"# public key: {public}\n{private}\n")
    except OSError as error:
        raise BastionError(f"{printable(str(file))} can not be made: {error.strerror}") from None
    typer.echo(public)
