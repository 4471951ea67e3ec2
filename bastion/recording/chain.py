"""What makes a recording tamper-evident: its bytes in blocks, each of which begins with the hash of the one before.

A block is whole lines. Once it has BLOCK bytes, a chain line with its number and its SHA-256 is written, which is the
first line of the next block. So the hash of the last block, which the audit log remembers at the end, vouches for all.
"""

import hashlib
import re
from dataclasses import dataclass

BLOCK = 64 << 10  # bytes
LINE = re.compile(rb'\[[0-9.]+, "h", "([0-9]{1,12}) ([0-9a-f]{64})"\]\n')


@dataclass(frozen=True, slots=True)
class End:
    """Where a recording ends, as the audit log remembers it: bytes and blocks of it, SHA-256 of its last block."""

    bytes: int
    blocks: int
    sha256: str


class Chain:
    """The state of a recording's chain; empty at first."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._blocks = 1
        self._in_block = 0  # bytes
        self._bytes = 0

    def copy(self) -> "Chain":
        other = Chain.__new__(Chain)
        other._hash = self._hash.copy()
        other._blocks, other._in_block, other._bytes = self._blocks, self._in_block, self._bytes
        return other

    def extend(self, lines: bytes) -> bytes:
        """`lines`, whole ones, as they are to be written: with the chain line where they fill the block."""
        self.add(lines)
        if self._in_block < BLOCK:
            return lines
        last = lines.rfind(b"\n", 0, -1) + 1
        time = lines[last + 1 : lines.index(b",", last)]
        line = b'[%b, "h", "%d %b"]\n' % (time, self._blocks, self._hash.hexdigest().encode("ascii"))
        self.begin_block(line)
        return lines + line

    def add(self, data: bytes) -> None:
        """`data` is what the block goes on with."""
        self._hash.update(data)
        self._in_block += len(data)
        self._bytes += len(data)

    def begin_block(self, line: bytes) -> None:
        """The chain line `line` is what a new block begins with."""
        self._hash = hashlib.sha256(line)
        self._blocks += 1
        self._in_block = len(line)
        self._bytes += len(line)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def end(self) -> End:
        """Where it ends now."""
        return End(self._bytes, self._blocks, self._hash.hexdigest())
