"""A look at a recording from the command line: play, watch, export, grep."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit.events import Event
from bastion.audit.search import Filters, Search
from bastion.audit.sessions import SessionRow
from bastion.audit.tables import ACTIVE
from bastion.cli.viewer import Viewer, database, viewer
from bastion.commands.terminal import Terminal
from bastion.config import Config
from bastion.control.client import tell
from bastion.errors import BastionError, Unavailable, printable
from bastion.recording.asciicast import Reader, RecordingError
from bastion.recording.files import open_lines, session_of
from bastion.recording.player import entered
from bastion.recording.sealing import read_identities
from bastion.recording.store import RecordingStore

Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        "-i",
        metavar="FILE",
        envvar="BASTION_IDENTITY",
        help="A private key, for recordings that are encrypted.",
    ),
]
MARKS = 10_000  # commands of a session that can be jumped to
SESSION_ID = typer.Argument(help="The session's id, or as much of its beginning as is unique.")


class Look:
    """One recording that may be read: the audit log knows that it is looked at."""

    def __init__(self, config: Config, path: Path, identities: Sequence[str]) -> None:
        self._config = config
        self._identities = identities
        self.path = path
        self._files = contextlib.ExitStack()
        with open_lines(self.path) as file:
            self.header = Reader(file, identities).header

    @property
    def title(self) -> str:
        """For the top of the viewer's window."""
        return f"{self.header.user} {self.header.address}"

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What goes wrong with the file while it is read is a sentence."""
        with self._files:
            try:
                yield
            except BrokenPipeError:
                raise
            except OSError as error:
                raise RecordingError(f"{self.path} can not be read: {error.strerror}") from error

    def open(self) -> Reader:
        """From its beginning; what was opened before is closed. RecordingError, OSError."""
        self._files.pop_all().close()
        return Reader(self._files.enter_context(open_lines(self.path)), self._identities)

    def commands(self) -> Sequence[float]:
        """When the commands were entered, in seconds: as the database has them, else at each Enter."""
        if known := asyncio.run(_commands(self._config, session_of(self.path))):
            return known
        with open_lines(self.path) as file:
            return entered(Reader(file, self._identities))

    def goes_on(self) -> bool:
        """Whether the session may still add to it; where the database does not answer, it may."""
        try:
            return asyncio.run(_row(self._config, session_of(self.path))).status == ACTIVE
        except BastionError:
            return True


def look(config: Config, session_id: str, how: str, identity: Path | None = None) -> Look:
    """For the person at the command line, once the audit log knows that they look, and how.

    `identity` is a file with the private key that an encrypted recording takes. BastionError where there is no such
    recording, or it is not theirs to see.
    """
    identities = read_identities(identity) if identity else []
    return Look(config, asyncio.run(_look(config, session_id, how)), identities)


async def may_see(config: Config, who: Viewer, path: Path) -> bool:
    """Whether a recording is of a session that this person may see."""
    if who.apps is None:
        return True
    try:
        return (await _row(config, session_of(path))).app_name in who.apps
    except Unavailable:
        raise
    except BastionError:  # it has no row
        return False


class _Nobody:
    """Wants to know nothing of what happens on a screen."""

    def mode_changed(self, mode: int, on: bool) -> None: ...
    def line_fed(self) -> None: ...
    def cursor_placed(self) -> None: ...


def make_terminal(columns: int, rows: int) -> Terminal:
    """The emulation that a recording is read from."""
    return Terminal(columns, rows, _Nobody())


async def _look(config: Config, session_id: str, how: str) -> Path:
    who = await viewer(config)
    if who.apps is not None:
        row = await _row(config, session_id)
        if row.app_name not in who.apps:
            raise BastionError(f"no session begins with {printable(session_id)}")
        session_id = row.session_id
    path = RecordingStore(config.recording).find(session_id)
    await tell(config, Event.RECORDING_VIEWED, user=who.name, session_id=session_of(path), how=how)
    return path


async def _commands(config: Config, session_id: str) -> list[float]:
    """The latest of them, in their order; none where the database does not answer."""
    try:
        async with database(config) as engine:
            rows = await Search(engine).commands(Filters(session=session_id), limit=MARKS)
    except Unavailable:
        return []
    return sorted(row.at for row in rows)


async def _row(config: Config, session_id: str) -> SessionRow:
    async with database(config) as engine:
        return await Search(engine).session(session_id)
