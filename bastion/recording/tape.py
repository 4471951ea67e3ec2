"""The file of one recording: whole lines are appended to it, in the writer thread."""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from bastion.recording.chain import Chain
from bastion.recording.files import sync_folder
from bastion.recording.sealing import Sealer


@dataclass(slots=True)
class Tape:
    """A file that has its header, opened for appending; `chain` is over all that is in it."""

    path: Path
    descriptor: int
    chain: Chain
    sealer: Sealer | None = None  # where it is encrypted

    def append(self, lines: list[bytes]) -> None:
        """Every line of a recording after its header comes through here.

        Returns when write(2) has: they survive the end of the bastion by kill -9.
        Raises OSError; the file then ends with the last whole line.
        """
        data = b"".join(lines)
        self._write(self.sealer.seal(data) if self.sealer else data)

    def _write(self, lines: bytes) -> None:
        chain = self.chain.copy()
        data = memoryview(chain.extend(lines))
        if os.fstat(self.descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "The file was deleted")
        written = 0
        try:
            while written < len(data):
                written += os.write(self.descriptor, data[written:])
        except OSError:
            with contextlib.suppress(OSError):  # a line without its end is what readers expect after a crash
                os.ftruncate(self.descriptor, self.chain.bytes)
            raise
        self.chain = chain

    def finish(self, *, whole: bool) -> None:
        """Brings it to the disk and closes it; `whole` if all of the session is in it. Raises OSError."""
        try:
            if self.sealer and whole:
                self._write(self.sealer.end())
            os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)
        sync_folder(self.path.parent)  # the file's name, too
