"""How far entries are on their way from the log into the database: what was put into the spool, and what is in it."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

SIZE = 64  # bytes, so that one write replaces the other
SAME_BOOT = 1.0  # seconds; the clock can be set meanwhile, then nothing is known until the next entry


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What may not be in the database yet: entries beyond number `put`, and those whose id is in `waiting`."""

    put: int
    waiting: frozenset[str]

    def may_be_missing(self, seq: int, id_: object) -> bool:
        return seq > self.put or id_ in self.waiting


def under_way(state_folder: Path) -> UnderWay:
    """Each entry up to `put` was in the spool then: it is there, or already in the database. OSError."""
    put = Mark(state_folder).read()  # first of all: what is put in meanwhile is beyond it
    waiting: set[str] = set()
    for path in sorted(spool_folder(state_folder).glob("*.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # all of it is in the database now
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(orjson.JSONDecodeError):  # cut short, or being written
                    waiting.add(orjson.loads(line)["id"])
    return UnderWay(put, frozenset(waiting))


def spool_folder(state_folder: Path) -> Path:
    return state_folder / "spool"


class Mark:
    """The number of the last entry that was put into the spool. Like the spool, it outlives the bastion's process."""

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / "spooled"
        self._file: int | None = None

    def open(self) -> None:
        """Raises OSError."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> int:
        """0 where it is not known: after a loss of power, which the spool and SQLite's last rows do not outlive."""
        try:
            number, boot = self._path.read_text().split()
            return int(number) if abs(float(boot) - _booted_at()) < SAME_BOOT else 0
        except (FileNotFoundError, ValueError):
            return 0

    def set(self, number: int) -> None:
        """Behind the write to the spool: a crash in between leaves it too low, so that nothing is missed wrongly."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            os.pwrite(self._file, f"{number} {_booted_at():.3f}".ljust(SIZE - 1).encode() + b"\n", 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _booted_at() -> float:
    """Unix time of the kernel's start. Not its boot_id, which a unit with ProcSubset=pid does not see."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
