"""The files of a log, as they are found on a disk: the one that is written, the rotated, the state, the anchor."""

import contextlib
import fcntl
import glob
import gzip
import json
import os
import statistics
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from bastion.audit.chain import Tip, digest, parse, signed
from bastion.audit.events import Event
from bastion.audit.signing import PublicKey
from bastion.audit.verify import Line
from bastion.errors import ConfigError

STATE_SIZE = 256  # bytes, so that one write replaces the other
Known = dict[int, tuple[str, str]]  # number of an entry -> its hash, and who remembers it


class InUse(ConfigError):
    """Another process appends to this log."""


class State:
    """FILE.state: the tip of the chain. It may be some entries late after a loss of power, and never early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def open(self) -> Tip | None:
        """Lock it, and say what it remembers. OSError; ConfigError where another process has it."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InUse([f"{self.path} is locked: a bastion, or one of its commands, writes to this log"]) from None
        return self.read()

    def read(self) -> Tip | None:
        try:
            found = json.loads(self.path.read_bytes())
            return Tip(int(found["seq"]), str(found["hash"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None  # new, or lost with the power

    def write(self, tip: Tip) -> None:
        """Without fsync: it outlives a crash of the bastion, and is only a help after a loss of power."""
        assert self._file is not None
        line = json.dumps({"seq": tip.seq, "hash": tip.hash}).ljust(STATE_SIZE - 1) + "\n"
        with contextlib.suppress(OSError):
            os.pwrite(self._file, line.encode(), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def state_file(path: Path) -> Path:
    return path.with_name(path.name + ".state")


def is_begun(path: Path) -> bool:
    """Has somebody written to this log already?"""
    return state_file(path).exists() or (path.is_file() and path.stat().st_size > 0)


def files(path: Path) -> list[Path]:
    """The log's file and those beside it that were rotated (FILE.1, FILE-20261125.gz), the oldest first."""
    return in_order(one for one in path.parent.glob(glob.escape(path.name) + "*") if one != state_file(path))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Files of one chain, in the order of their entries. Those that have none are left out. OSError."""
    numbers: dict[Path, int] = {}
    for path in paths:
        first = [
            int(str(fields["seq"])) for line in islice(lines_of(path), 9) if (fields := parse(line.raw)) is not None
        ]
        if first:
            numbers[path] = statistics.median_low(first)  # one that was put or moved there changes nothing
    return sorted(numbers, key=lambda path: numbers[path])


def lines_behind(path: Path, number: int, last: int) -> Iterator[bytes]:
    """The entries of a log behind one number up to another, also from its rotated files. OSError."""
    for one in _files_from(path, number + 1) if number < last else ():
        for line in lines_of(one):
            fields = parse(line.raw) if line.whole else None
            if fields is not None and number < int(str(fields["seq"])) <= last:
                yield line.raw


def _files_from(path: Path, number: int) -> list[Path]:
    """Those that may have this entry, and later ones."""
    found: list[Path] = []
    for one in reversed(files(path)):
        found.insert(0, one)
        first = next((fields for line in lines_of(one) if (fields := parse(line.raw)) is not None), None)
        if first is not None and int(str(first["seq"])) <= number:
            break
    return found


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file, also of a compressed one. OSError."""
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        with gzip.open(plain) if packed else contextlib.nullcontext(plain) as stream:
            yield from numbered(str(path), stream)


def anchored(path: Path, key: PublicKey | None) -> Known:
    """The signed heads in a file that has them from elsewhere: the anchor, or what syslog has written. OSError."""
    found: dict[int, tuple[str, str]] = {}
    try:
        for line in lines_of(path):
            raw = line.raw[line.raw.find(b"{") :]
            fields = parse(raw) or {}
            if fields.get("event") == Event.AUDIT_HEAD and (key is None or signed(raw, key)):
                found[int(str(fields["seq"]))] = digest(raw), line.place
    except FileNotFoundError:
        return {}
    return found


def numbered(name: str, stream: Iterable[bytes]) -> Iterator[Line]:
    """The lines of an open file."""
    for number, line in enumerate(stream, 1):
        yield Line(f"{name}:{number}", line.removesuffix(b"\n"), line.endswith(b"\n"))


def sync_folder(path: Path) -> None:
    """Make what was made in it durable. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
