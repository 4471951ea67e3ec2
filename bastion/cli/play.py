"""`bastion play ID`: shows a recorded session at its speed."""

import os
import signal
import sys
from typing import Annotated

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config
from bastion.recording import player
from bastion.recording.asciicast import RecordingError
from bastion.recording.store import RecordingStore


def play(
    session_id: Annotated[str, typer.Argument(help="The session's id, or as much of its beginning as is unique.")],
    config: ConfigFile = CONFIG_FILE,
    speed: Annotated[float, typer.Option(help="2 plays twice as fast.", min=0.01)] = 1.0,
    idle_limit: Annotated[float | None, typer.Option(help="Longest pause, in seconds of the session.", min=0.0)] = None,
) -> None:
    """Play a recorded session at its speed. Escape sequences that could harm your terminal are left out."""
    path = RecordingStore(load_config(config).recording).find(session_id)
    try:
        truncated = player.play(path, sys.stdout.buffer, speed, idle_limit)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `bastion play ID | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        raise typer.Exit(128 + signal.SIGPIPE) from None
    except OSError as error:
        raise RecordingError(f"{path} can not be read: {error.strerror}") from error
    if truncated:
        typer.echo(truncated, err=True)
