"""Is a recording what the bastion wrote? Needs no private key: the chain is over the lines as they are stored."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import zstandard

from bastion.recording.asciicast import RecordingError, decode_event, decode_header
from bastion.recording.chain import LINE, End
from bastion.recording.files import open_lines, session_of
from bastion.recording.position import format_position

_TIME = re.compile(rb"\[([0-9]+\.[0-9]+),")
_END = re.compile(rb'\[[0-9.]+, "z", ')


class Damage(StrEnum):
    """What was done to a recording."""

    CHANGED = "changed"  # within a block: something was replaced, put in or taken out
    REMOVED = "removed"  # whole blocks
    ADDED = "added"
    REORDERED = "re-ordered"
    CUT_SHORT = "cut short"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first place that is not as it was written: in these lines, from 1, which begin at byte `offset`, from 0."""

    damage: Damage
    first_line: int
    last_line: int
    offset: int
    time: float | None  # seconds in the recording, at the beginning of that place

    def __str__(self) -> str:
        when = "" if self.time is None else f", from {format_position(self.time)} on"
        return f"{self.damage} in lines {self.first_line} to {self.last_line} (from byte {self.offset} on{when})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`end` is where the recording ends now; `ended` says that its session ended in order: otherwise it still runs, or
    a crash or a full disk cut it off. `finding` is None where nothing was done to it, as far as can be known.
    """

    end: End
    ended: bool
    finding: Finding | None


@dataclass(slots=True)
class _Block:
    first_line: int
    offset: int
    last_line: int = 0
    size: int = 0
    time: float | None = None
    sha256: str = ""
    stated: tuple[int, str] | None = None  # number and SHA-256, by the chain line behind it

    def finding(self, damage: Damage) -> Finding:
        return Finding(damage, self.first_line, self.last_line, self.offset, self.time)


@dataclass(slots=True)
class _File:
    blocks: list[_Block] = field(default_factory=list)
    tail: list[bytes] = field(default_factory=list)  # the lines of the last block
    ended_in_line: int | None = None
    damaged: bool = False  # it can not be decompressed further

    @property
    def lines(self) -> int:
        return self.blocks[-1].last_line

    @property
    def end(self) -> End:
        last = self.blocks[-1]
        return End(last.offset + last.size, len(self.blocks), last.sha256)


def verify(path: Path, remembered: End | None) -> Verdict:
    """Hold a recording against its own chain and, where there is one, the end that the audit log remembers.

    Without that, what was done to its last block, or to all of it at once, may not be found: the chain has no secret.
    Raises OSError; FileNotFoundError where the recording is gone.
    """
    file = _read(path)
    finding = _in_chain(file.blocks) or _in_tail(file, session_of(path), remembered)
    return Verdict(file.end, file.ended_in_line is not None, finding)


def _read(path: Path) -> _File:
    found = _File()
    block, digest = _Block(1, 0), hashlib.sha256()
    number = 0

    def close(stated: tuple[int, str] | None) -> None:
        block.last_line, block.sha256, block.stated = number, digest.hexdigest(), stated
        found.blocks.append(block)

    with open_lines(path) as lines:
        try:
            for line in lines:
                if match := LINE.fullmatch(line):
                    close((int(match[1]), match[2].decode("ascii")))
                    block, digest = _Block(number + 1, block.offset + block.size), hashlib.sha256()
                    found.tail.clear()
                number += 1
                digest.update(line)
                block.size += len(line)
                found.tail.append(line)
                if block.time is None and (time := _TIME.match(line)):
                    block.time = float(time[1])
                if found.ended_in_line is None and line.endswith(b"\n") and _END.match(line):
                    found.ended_in_line = number
        except zstandard.ZstdError:
            found.damaged = True
        close(None)
    return found


def _in_chain(blocks: Sequence[_Block]) -> Finding | None:
    """The first of the blocks that the chain says something else about."""
    for number, block in enumerate(blocks, start=1):
        if block.stated is None:
            break
        if block.stated[0] > number:
            later = {other.stated[0] for other in blocks[number:] if other.stated is not None}
            return block.finding(Damage.REORDERED if number in later else Damage.REMOVED)
        if block.stated[0] < number:
            return block.finding(Damage.ADDED)
        if block.stated[1] != block.sha256:
            return block.finding(Damage.CHANGED)
    return None


def _in_tail(file: _File, session_id: str, remembered: End | None) -> Finding | None:
    last = file.blocks[-1]
    if file.damaged:
        return last.finding(Damage.CHANGED)
    if file.ended_in_line is not None and file.ended_in_line < file.lines:
        return Finding(Damage.ADDED, file.ended_in_line + 1, file.lines, last.offset, last.time)
    if remembered is not None:
        return _beside(file, remembered)
    if len(file.blocks) == 1 and not _begins(file.tail, session_id):
        return last.finding(Damage.CHANGED)
    for line in file.tail[1:]:
        try:
            if line.endswith(b"\n"):  # a crash may have cut the last one
                decode_event(line)
        except RecordingError:
            return last.finding(Damage.CHANGED)
    return None


def _beside(file: _File, remembered: End) -> Finding | None:
    """What the log says of the last block, and of how many there are."""
    end, last = file.end, file.blocks[-1]
    if end == remembered:
        return None
    if end.bytes < remembered.bytes and file.ended_in_line is None:
        return Finding(Damage.CUT_SHORT, file.lines, file.lines, end.bytes, last.time)
    if end.bytes > remembered.bytes and file.ended_in_line is None:
        return last.finding(Damage.ADDED)
    return last.finding(Damage.CHANGED)


def _begins(lines: Sequence[bytes], session_id: str) -> bool:
    try:
        return bool(lines) and decode_header(lines[0]).session_id in ("", session_id)
    except RecordingError:
        return False
