"""`bastion play ID`: shows a recorded session at its speed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bastion.config import load_config
from bastion.errors import ConfigError
from bastion.recording import player
from bastion.recording.asciicast import RecordingError
from bastion.recording.store import RecordingStore


def play(
    session_id: Annotated[str, typer.Argument(help="The session's id, or as much of its beginning as is unique.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.yaml"),
    speed: Annotated[float, typer.Option(help="2 plays twice as fast.", min=0.01)] = 1.0,
    idle_limit: Annotated[float | None, typer.Option(help="Longest pause, in seconds of the session.", min=0.0)] = None,
) -> None:
    """Play a recorded session at its speed. Escape sequences that could harm your terminal are left out."""
    try:
        path = RecordingStore(load_config(config).recording).find(session_id)
        truncated = player.play(path, sys.stdout.buffer, speed, idle_limit)
    except (ConfigError, RecordingError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # `bastion play ID | head`
        sys.stderr.close()  # else the interpreter complains about stdout when it ends
        raise typer.Exit(141) from None
    except OSError as error:
        typer.echo(f"the recording can not be read: {error}", err=True)
        raise typer.Exit(1) from error
    if truncated:
        typer.echo(truncated, err=True)
