"""Where recordings are: recording.folder/YYYY/MM/DD/SESSION_ID.cast[.zst], folders 0700, files 0600."""

import asyncio
import contextlib
import errno
import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bastion import config
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Terminal
from bastion.recording.asciicast import Header, RecordingError, encode_header, encode_sealed_header
from bastion.recording.chain import Chain
from bastion.recording.files import CAST, COMPRESSED, newest, session_of
from bastion.recording.integrity import Verdict, verify
from bastion.recording.packer import Packer
from bastion.recording.recorder import Recorder, describe
from bastion.recording.sealing import Sealer
from bastion.recording.tape import Tape
from bastion.recording.writers import Writers

BATCH = 500  # sessions that are asked about at once
_logger = logging.getLogger(__name__)
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class RecordingStore:
    """Opens, finds and compresses recordings. Threads and the folder come into being with the first `open`."""

    def __init__(self, section: config.Recording) -> None:
        self._section = section
        self._writers: Writers | None = None
        self._packer = Packer()
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
        path = self._section.folder / day / f"{session_id}{CAST}"
        creating = asyncio.get_running_loop().run_in_executor(
            writers.files, _create, self._section, path, header, not self._prepared
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
            closed=self._packer.pack,
            failure=failure,
        )

    def find(self, session_id: str) -> Path:
        """The recording of the session that has this id, or the only one whose id begins with it.

        By the name that it has while it grows: files.open_lines opens it also where it is compressed. RecordingError.
        """
        folder = self._section.folder
        if not _SAFE.fullmatch(session_id):
            raise RecordingError(f"{session_id!r} is no session id: letters, digits, - and _ only")
        names = (name for suffix in (CAST, COMPRESSED) for name in folder.glob(f"*/*/*/{session_id}*{suffix}"))
        found = sorted({path.with_name(session_of(path) + CAST) for path in names})
        exact = [path for path in found if session_of(path) == session_id]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if not found:
            raise RecordingError(f"no recording of a session {session_id}… in {folder}")
        some = ", ".join(session_of(path) for path in found[:5])
        raise RecordingError(f"{len(found)} recordings fit {session_id}…: {some}{', …' if len(found) > 5 else ''}")

    def all(self) -> list[Path]:
        """Every recording, the latest first, by the name that it has while it grows."""
        found: dict[Path, tuple[Path, float]] = {}
        for path in self._section.folder.glob(f"*/*/*/*{CAST}*"):
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                if path.name.endswith((CAST, COMPRESSED)):
                    found[path.with_name(session_of(path) + CAST)] = path.parent, newest(path)
        return sorted(found, key=lambda path: found[path], reverse=True)

    async def close_lost(self, session_id: str) -> Verdict | None:
        """The recording of a session that a crash cut off is over; None where there is none that can be read."""
        try:
            path = self.find(session_id)
            verdict = await self._packer.run(partial(verify, path, None))
        except (RecordingError, OSError):
            return None
        self._packer.pack(path)
        return verdict

    async def compress_left(self, over: Callable[[Sequence[str]], Awaitable[Collection[str]]]) -> None:
        """Compress what a crash, or a shutdown that had no time for it, has left as it was.

        `over` says which of these sessions have ended: another bastion may record into the same folder.
        """
        left = await asyncio.to_thread(self._uncompressed)
        for start in range(0, len(left), BATCH):
            paths = {session_of(path): path for path in left[start : start + BATCH]}
            try:
                for session_id in await over(list(paths)):
                    self._packer.pack(paths[session_id])
            except Unavailable as outage:
                _logger.warning("%d recordings stay uncompressed until the next start: %s", len(paths), outage.log_text)

    def _uncompressed(self) -> list[Path]:
        return list(self._section.folder.glob(f"*/*/*/*{CAST}"))

    async def close(self) -> None:
        """Writes what is still queued and ends the threads. Recordings are to be closed before."""
        self._closed = True
        if self._writers is not None:
            writers, self._writers = self._writers, None
            await writers.close()
        await self._packer.close()


def _create(section: config.Recording, path: Path, header: Header, make_folder: bool) -> Tape:
    """Raises OSError. No symbolic link below the folder is followed, and nothing that exists is written to."""
    folder = section.folder
    beginning, sealer = encode_header(header), None
    if section.recipients:
        sealer = Sealer(section.recipients)
        beginning = encode_sealed_header(header, sealer.header) + sealer.seal(beginning)
    if make_folder:  # later a folder that is gone was unmounted or removed: to make another would hide that
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_space(inside, section.min_free_bytes)
        for name in path.relative_to(folder).parent.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=inside)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
            os.close(inside)
            inside = below
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, 0o600, dir_fd=inside)
        try:
            written = os.write(descriptor, beginning)
            if written < len(beginning):
                os.write(descriptor, beginning[written:])  # tells why it was cut short
        except OSError:
            os.close(descriptor)
            os.unlink(path.name, dir_fd=inside)  # the session that it was for is not started
            raise
    finally:
        os.close(inside)
    chain = Chain()
    chain.add(beginning)
    return Tape(path, descriptor, chain, sealer)


def _check_space(folder: int, least: int) -> None:
    """Raises OSError."""
    there = os.fstatvfs(folder)
    if (free := there.f_bavail * there.f_frsize) < least:
        raise OSError(errno.ENOSPC, f"{free} bytes are free, recording.min_free_bytes is {least}")


def _abandon(creating: asyncio.Future[Tape]) -> None:
    if not creating.cancelled() and creating.exception() is None:
        os.close(creating.result().descriptor)
