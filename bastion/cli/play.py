"""`bastion play ID` and `bastion sessions watch ID`: a session as its user saw it, then or now."""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.recordings import SESSION_ID, Identity, Look, look
from bastion.cli.terminal import Tty
from bastion.config import load_config
from bastion.recording.player import Player
from bastion.recording.position import parse_position


def _position(text: str) -> float:
    try:
        return parse_position(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def play(
    session_id: Annotated[str, SESSION_ID],
    config: ConfigFile = CONFIG_FILE,
    speed: Annotated[float, typer.Option(help="2 plays twice as fast.", min=0.01)] = 1.0,
    idle_limit: Annotated[float | None, typer.Option(help="Longest pause, in seconds of the session.", min=0.0)] = None,
    at: Annotated[
        float | None, typer.Option(metavar="TIME", parser=_position, help="Begin there: 90, 1:30 or 1:02:03.5.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for what a running session adds.")] = False,
    identity: Identity = None,
) -> None:
    """Play a recorded session at its speed. Escape sequences that could harm your terminal are left out.

    Keys: space pauses and goes on, . steps to the next output, the arrows right and left jump 5 seconds, n and p jump
    to the next and the previous command, + and - change the speed, q ends.
    """
    _show(look(load_config(config), session_id, "play", identity), speed, idle_limit, at or 0.0, follow=follow)


def watch(session_id: Annotated[str, SESSION_ID], config: ConfigFile = CONFIG_FILE, identity: Identity = None) -> None:
    """Show a running session live, from its screen as it is now; keys as of bastion play."""
    _show(look(load_config(config), session_id, "watch", identity), 1.0, None, math.inf, follow=True)


def _show(looked: Look, speed: float, idle_limit: float | None, at: float, *, follow: bool) -> None:
    with ends_like_a_program(), looked.reading(), Tty(looked.title, raw=looked.header.terminal) as viewer:
        player = Player(
            looked.open,
            viewer,
            speed=speed,
            idle_limit=idle_limit,
            goes_on=looked.goes_on if follow else lambda: False,
            marks=looked.commands,
        )
        truncated = player.play(at)
    if truncated:
        typer.echo(truncated, err=True)


@contextlib.contextmanager
def ends_like_a_program() -> Iterator[None]:
    """With the status of the signal that ended it."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `bastion play ID | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        raise typer.Exit(128 + signal.SIGPIPE) from None
