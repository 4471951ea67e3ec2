"""Where recordings are: recording.folder/YYYY/MM/DD/SESSION_ID.cast, folders 0700, files 0600."""

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bastion import config
from bastion.errors import Reason, Refusal
from bastion.model import Terminal
from bastion.recording.asciicast import Header, RecordingError, encode_header
from bastion.recording.recorder import Recorder, describe
from bastion.recording.tape import Tape
from bastion.recording.writers import Writers

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class RecordingStore:
    """Opens and finds recordings. Threads and the folder come into being with the first `open`."""

    def __init__(self, section: config.Recording) -> None:
        self._section = section
        self._writers: Writers | None = None
        self._prepared = False  # the folder was there once
        self._closed = False

    async def open(
        self,
        session_id: str,
        *,
        user: str,
        address: str,
        started: datetime | None = None,
        command: str | None = None,
        env: Mapping[str, str] | None = None,
        terminal: Terminal | None = None,
    ) -> Recorder:
        """A new recording with its header on file.

        `started` has a time zone, and is now if left out; `env` is what the header shows of the environment, to which
        TERM is added.
        Raises Refusal (RECORDING_FAILED), ValueError for a session id that is no safe file name.
        """
        if not _SAFE.fullmatch(session_id):
            raise ValueError(f"a session id has letters, digits, - and _ only, not {session_id!r}")
        if self._closed:
            raise Refusal(Reason.SHUTTING_DOWN, "The bastion is shutting down.", "the recording store is closed")
        started = started or datetime.now(UTC)
        writers = self._writers = self._writers or Writers()
        header = Header(
            session_id=session_id,
            user=user,
            address=address,
            timestamp=int(started.timestamp()),
            columns=terminal.columns if terminal else 80,
            rows=terminal.rows if terminal else 24,
            terminal=terminal is not None,
            command=command,
            env={**(env or {}), **({"TERM": terminal.term} if terminal else {})},
        )
        day = started.astimezone(UTC).strftime("%Y/%m/%d")
        path = self._section.folder / day / f"{session_id}.cast"
        creating = asyncio.get_running_loop().run_in_executor(
            writers.files, _create, self._section.folder, path, encode_header(header), not self._prepared
        )
        strict = self._section.mode == "strict"
        tape: Tape | None = None
        failure: str | None = None
        try:
            tape = await asyncio.shield(creating)
            self._prepared = True
        except asyncio.CancelledError:
            creating.add_done_callback(_abandon)
            raise
        except OSError as error:
            failure = describe(error)
            if strict:
                raise Refusal(
                    Reason.RECORDING_FAILED,
                    "Sessions can not be recorded at the moment, so none is started. "
                    "Please tell the administrators of this bastion.",
                    f"recording {path}: {failure}; recording.folder must be there, writable, and have free space",
                ) from error
        return Recorder(
            writers,
            path,
            tape,
            terminal=header.terminal,
            strict=strict,
            max_bytes=self._section.max_bytes,
            failure=failure,
        )

    def find(self, session_id: str) -> Path:
        """The recording of the session that has this id, or the only one whose id begins with it.

        Raises RecordingError.
        """
        folder = self._section.folder
        if not _SAFE.fullmatch(session_id):
            raise RecordingError(f"{session_id!r} is no session id: letters, digits, - and _ only")
        found = sorted(folder.glob(f"*/*/*/{session_id}*.cast"))
        exact = [path for path in found if path.stem == session_id]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if not found:
            raise RecordingError(f"no recording of a session {session_id}… in {folder}")
        names = ", ".join(path.stem for path in found[:5])
        raise RecordingError(f"{len(found)} recordings fit {session_id}…: {names}{', …' if len(found) > 5 else ''}")

    async def close(self) -> None:
        """Writes what is still queued and ends the threads. Recordings are to be closed before."""
        self._closed = True
        if self._writers is not None:
            writers, self._writers = self._writers, None
            await writers.close()


def _create(folder: Path, path: Path, header: bytes, make_folder: bool) -> Tape:
    """Raises OSError. No symbolic link below `folder` is followed, and nothing that exists is written to."""
    if make_folder:  # later a folder that is gone was unmounted or removed: to make another would hide that
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.relative_to(folder).parent.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=inside)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
            os.close(inside)
            inside = below
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, 0o600, dir_fd=inside)
        try:
            written = os.write(descriptor, header)
            if written < len(header):
                os.write(descriptor, header[written:])  # tells why it was cut short
        except OSError:
            os.close(descriptor)
            os.unlink(path.name, dir_fd=inside)  # the session that it was for is not started
            raise
    finally:
        os.close(inside)
    return Tape(path, descriptor, len(header))


def _abandon(creating: asyncio.Future[Tape]) -> None:
    if not creating.cancelled() and creating.exception() is None:
        os.close(creating.result().descriptor)
