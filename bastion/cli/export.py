"""`bastion sessions export ID`: a recording for other programs."""

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.play import ends_like_a_program
from bastion.cli.recordings import SESSION_ID, Identity, Look, look, make_terminal
from bastion.config import load_config
from bastion.errors import BastionError, printable
from bastion.recording import export as formats
from bastion.recording.escapes import Filter


class Format(StrEnum):
    ASCIICAST = "asciicast"
    TYPESCRIPT = "typescript"
    TEXT = "text"


def export(
    session_id: Annotated[str, SESSION_ID],
    format_: Annotated[
        Format, typer.Option("--format", help="For asciinema, for scriptreplay of util-linux, or for grep.")
    ] = Format.ASCIICAST,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A new file, instead of the standard output."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Every byte as it was recorded: it can do harm to a terminal.")
    ] = False,
    identity: Identity = None,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Export a recording. Escape sequences that could harm a terminal are left out, unless --raw is given.

    Text is what was to be read on the screen, line by line, each with its time, and harmless in any case. A typescript
    is three files: FILE is what was shown, FILE.typed what was typed, FILE.timing when.
    """
    if format_ is Format.TYPESCRIPT and output is None:
        raise typer.BadParameter("a typescript is three files; --output FILE says where", param_hint="--output")
    looked = look(load_config(config), session_id, "export", identity)
    with ends_like_a_program(), looked.reading():
        if format_ is Format.TYPESCRIPT:
            assert output is not None
            truncated = _typescript(looked, output, raw=raw)
        else:
            truncated = _one_file(looked, format_, output, raw=raw)
    if truncated:
        typer.echo(truncated, err=True)


def _one_file(looked: Look, format_: Format, output: Path | None, *, raw: bool) -> str | None:
    with _created(output) if output else contextlib.nullcontext(sys.stdout.buffer) as out:
        reader = looked.open()
        if format_ is Format.TEXT:
            formats.write_text(reader, out, make_terminal)
        elif raw:
            formats.write_lines(reader, out)
        else:
            formats.write_asciicast(reader, out)
    return reader.truncated


def _typescript(looked: Look, output: Path, *, raw: bool) -> str | None:
    reader = looked.open()
    with (
        _created(output) as out,
        _created(output.with_name(output.name + ".typed")) as typed,
        _created(output.with_name(output.name + ".timing")) as timing,
    ):
        formats.write_typescript(reader, out, typed, timing, formats.Unfiltered if raw else Filter)
    return reader.truncated


@contextlib.contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file that is its maker's alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BastionError(f"{printable(str(path))} can not be made: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        yield file
