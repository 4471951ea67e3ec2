"""The file of one recording: whole lines are appended to it, in the writer thread."""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Tape:
    """A file that has its header: opened for appending, `size` bytes long."""

    path: Path
    descriptor: int
    size: int

    def append(self, lines: list[bytes]) -> None:
        """Every line of a recording after its header comes through here.

        Returns when write(2) has: they survive the end of the bastion by kill -9.
        Raises OSError; the file then ends with the last whole line.
        """
        data = memoryview(b"".join(lines))
        if os.fstat(self.descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "The file was deleted")
        written = 0
        try:
            while written < len(data):
                written += os.write(self.descriptor, data[written:])
        except OSError:
            with contextlib.suppress(OSError):  # a line without its end is what readers expect after a crash
                os.ftruncate(self.descriptor, self.size)
            raise
        self.size += written

    def finish(self) -> None:
        """Brings it to the disk and closes it. Raises OSError."""
        try:
            os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the file's name, too
        finally:
            os.close(folder)
