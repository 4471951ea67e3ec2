"""What waits on disk for the database: lines, first in, first out, over a restart. Blocking: for one thread."""

import errno
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEGMENT = 4 << 20  # bytes of a file before the next one is begun: what is over is given back file by file


@dataclass
class _Segment:
    path: Path
    size: int


class Spool:
    """Files of whole lines in `folder`, the oldest first. Nothing is brought to the disk (fsync): what is written here
    survives the end of this process, however it ends.

    What was taken out may come again after a crash; nothing that was put in is missing.
    """

    def __init__(self, folder: Path, limit: int, segment: int = SEGMENT) -> None:
        self._folder = folder
        self._limit = limit
        self._segment = segment
        self._segments: deque[_Segment] = deque()
        self._offset = 0  # what of the first segment is taken out
        self._next = 1
        self._appending: int | None = None  # descriptor of the last segment

    def open(self) -> None:
        """Find what an earlier process left. OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.jsonl")):
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):  # the line that was being written in the crash: nobody was told that it is there
                os.truncate(path, whole)
            self._segments.append(_Segment(path, whole))
            self._next = int(path.stem) + 1

    def close(self) -> None:
        if self._appending is not None:
            os.close(self._appending)
            self._appending = None

    def append(self, lines: Sequence[bytes]) -> None:
        """Put these in, all or none of them. OSError, ENOSPC also where the limit would be passed."""
        data = b"".join(line + b"\n" for line in lines)
        if sum(segment.size for segment in self._segments) - self._offset + len(data) > self._limit:
            raise OSError(errno.ENOSPC, f"{self._limit >> 20} MiB wait already", str(self._folder))
        last = self._last()
        assert self._appending is not None
        try:
            written = 0
            while written < len(data):
                written += os.write(self._appending, data[written:])
        except OSError:
            os.ftruncate(self._appending, last.size)
            raise
        last.size += len(data)

    def first(self, count: int) -> list[bytes]:
        """At most so many of the first lines; they stay in. OSError."""
        while len(self._segments) > 1 and self._offset == self._segments[0].size:
            self._drop()
        if not self._segments:
            return []
        lines: list[bytes] = []
        with self._segments[0].path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                lines.append(line[:-1])
                if len(lines) == count:
                    break
        return lines

    def remove(self, lines: Sequence[bytes]) -> None:
        """Take these out, which first() gave. OSError."""
        self._offset += sum(len(line) + 1 for line in lines)
        if self._offset == self._segments[0].size:
            self._drop()

    def _drop(self) -> None:
        """Give back the first segment, all of which is taken out."""
        if len(self._segments) == 1 and self._appending is not None:
            os.ftruncate(self._appending, 0)
            self._segments[0].size = 0
        else:
            self._segments[0].path.unlink(missing_ok=True)
            self._segments.popleft()
        self._offset = 0

    def _last(self) -> _Segment:
        """The segment that is appended to."""
        if self._appending is None or self._segments[-1].size >= self._segment:
            self.close()
            path = self._folder / f"{self._next:012}.jsonl"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._appending = os.open(path, flags, 0o600)
            self._segments.append(_Segment(path, 0))
            self._next += 1
        return self._segments[-1]
