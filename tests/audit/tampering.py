"""What somebody does to a log who can write to it, and has no key: a random change, the first entry it hits."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from bastion.audit.chain import digest


@dataclass(frozen=True)
class Change:
    """The log's lines after it. The first entry that is not as it was is `first`, or one before a forged head."""

    kind: str
    lines: list[bytes]
    first: int
    hashed_anew: bool = False  # nobody can tell where since the last good head
    state: bool = True  # the file that remembers the end is as it was; else it was changed, too


def seq_of(line: bytes) -> int:
    return int(json.loads(line)["seq"])


def relinked(lines: list[bytes], start: int, end: int | None = None) -> list[bytes]:
    """`lines` with number and hash right again from `start` on; the signatures of heads stay what they were."""
    made = list(lines[:start])
    for line in lines[start:end]:
        fields = json.loads(line)
        fields["seq"], fields["prev"] = (seq_of(made[-1]) + 1, digest(made[-1])) if made else (1, "0" * 64)
        made.append(json.dumps(fields).encode())
    return made + (lines[end:] if end is not None else [])


def forged(rng: random.Random, line: bytes) -> bytes:
    """The same entry, with something else in it."""
    fields = json.loads(line)
    name = rng.choice([name for name in fields if name not in ("seq", "prev", "signature")])
    fields[name] = "mallory" if isinstance(fields[name], str) else 4711
    return json.dumps(fields).encode()


def a_byte(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(len(lines))
    changed = bytearray(lines[at])
    place = rng.randrange(len(changed))
    changed[place] = rng.choice([byte for byte in range(256) if byte not in (changed[place], 10)])
    return Change("a byte", [*lines[:at], bytes(changed), *lines[at + 1 :]], at + 1)


def a_field(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(len(lines))
    return Change("a field", [*lines[:at], forged(rng, lines[at]), *lines[at + 1 :]], at + 1)


def a_field_and_hashes(rng: random.Random, lines: list[bytes]) -> Change:
    """The rest, or some of the rest, is linked anew."""
    at = rng.randrange(len(lines) - 1)
    end = rng.choice([None, rng.randrange(at + 1, len(lines))])
    changed = relinked([*lines[:at], forged(rng, lines[at]), *lines[at + 1 :]], at + 1, end)
    return Change("a field, hashed anew", changed, at + 1, hashed_anew=True)


def removed(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(len(lines) - 1)
    count = rng.choice([1, 1, 2, rng.randrange(1, len(lines) - at)])
    count = min(count, len(lines) - at - 1)
    return Change("removed", lines[:at] + lines[at + count :], at + 1)


def removed_and_hashes(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(len(lines) - 1)
    return Change("removed, hashed anew", relinked(lines[:at] + lines[at + 1 :], at), at + 1, hashed_anew=True)


def added(rng: random.Random, lines: list[bytes]) -> Change:
    """Nonsense, a copy of another line, or an entry that looks as if it belonged."""
    at = rng.randrange(len(lines))
    fake = [b'{"event": "x"}', b"", b"garbage#", rng.choice(lines), lines[max(0, at - 1)]][rng.randrange(5)]
    if fake == lines[at]:
        fake = b"[]"  # beside itself, nobody can tell which of them is the copy
    if rng.random() < 0.4 and at:
        fake = relinked([*lines[:at], forged(rng, lines[at - 1])], at)[at]
    return Change("added", [*lines[:at], fake, *lines[at:]], at + 1)


def added_and_hashes(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(1, len(lines))
    changed = relinked([*lines[:at], forged(rng, rng.choice(lines)), *lines[at:]], at)
    return Change("added, hashed anew", changed, at + 1, hashed_anew=True)


def reordered(rng: random.Random, lines: list[bytes]) -> Change:
    """Two that change places, or a block that moves."""
    if rng.random() < 0.5:
        one, other = sorted(rng.sample(range(len(lines)), 2))
        changed = list(lines)
        changed[one], changed[other] = lines[other], lines[one]
        return Change("re-ordered", changed, one + 1)
    start, middle, end = sorted(rng.sample(range(1, len(lines) + 1), 3))
    return Change("re-ordered", lines[:start] + lines[middle:end] + lines[start:middle] + lines[end:], start + 1)


def cut(rng: random.Random, lines: list[bytes]) -> Change:
    at = rng.randrange(1, len(lines))
    return Change("cut", lines[:at], at + 1)


def rolled_back(rng: random.Random, lines: list[bytes]) -> Change:
    """To an older copy that ends with a signed head, as does the file that remembers the end."""
    heads = [n for n, line in enumerate(lines[:-1], 1) if b'"event": "audit.head"' in line]
    at = rng.choice(heads)
    return Change("rolled back", lines[:at], at + 1, state=False)


KINDS: list[Callable[[random.Random, list[bytes]], Change]] = [
    a_byte, a_field, a_field_and_hashes, removed, removed_and_hashes, added, added_and_hashes, reordered, cut,
    rolled_back,
]  # fmt: skip


def write_files(folder: Path, change: Change, sizes: Sequence[int]) -> None:
    """As audit.jsonl and its rotated files, which had so many lines before, the oldest first."""
    starts = [0, *accumulate(sizes)]
    for number, start in enumerate(starts[:-1]):
        end = starts[number + 1] if number < len(sizes) - 1 else None
        name = "audit.jsonl" if end is None else f"audit.jsonl.{len(sizes) - 1 - number}"
        (folder / name).write_bytes(b"".join(line + b"\n" for line in change.lines[start:end]))
