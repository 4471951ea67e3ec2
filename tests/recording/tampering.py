"""What somebody does to the lines of a recording who can write to its file: a random change, and where it is."""

import random
from collections.abc import Callable

from bastion.recording.asciicast import encode_text
from bastion.recording.chain import LINE
from bastion.recording.integrity import Damage

Lines = list[bytes]
# What is left, what it may be called, and the first and last line of what was touched, from 0
Changed = tuple[Lines, set[Damage], int, int]


def chain_lines(data: Lines) -> list[int]:
    """Where they are, from 0."""
    return [number for number, line in enumerate(data) if LINE.fullmatch(line)]


def flip(data: Lines, made: random.Random) -> Changed:
    """One byte of one line."""
    at = made.randrange(len(data))
    line = bytearray(data[at])
    line[made.randrange(len(line) - 1)] ^= 1 << made.randrange(7)
    return [*data[:at], bytes(line), *data[at + 1 :]], {*Damage}, at, at


def remove_line(data: Lines, made: random.Random) -> Changed:
    at = made.randrange(len(data) - 1)
    return [*data[:at], *data[at + 1 :]], {Damage.CHANGED, Damage.REMOVED}, at, at


def add_line(data: Lines, made: random.Random) -> Changed:
    at = made.randrange(1, len(data) + 1)
    return [*data[:at], encode_text(at, "o", "never"), *data[at:]], {Damage.CHANGED, Damage.ADDED}, at, at


def swap_lines(data: Lines, made: random.Random) -> Changed:
    first, second = sorted(made.sample(range(1, len(data)), 2))
    changed = list(data)
    changed[first], changed[second] = data[second], data[first]
    return changed, {*Damage}, first, second


def remove_block(data: Lines, made: random.Random) -> Changed:
    chain = chain_lines(data)
    block = made.randrange(len(chain) - 1)
    return [*data[: chain[block]], *data[chain[block + 1] :]], {Damage.REMOVED}, chain[block] - 1, chain[block]


def swap_blocks(data: Lines, made: random.Random) -> Changed:
    chain = chain_lines(data)
    first = made.randrange(len(chain) - 2)
    a, b, c = chain[first : first + 3]
    return [*data[:a], *data[b:c], *data[a:b], *data[c:]], {Damage.REORDERED}, a - 1, a


def repeat_block(data: Lines, made: random.Random) -> Changed:
    chain = chain_lines(data)
    first = made.randrange(len(chain) - 1)
    a, b = chain[first : first + 2]
    return [*data[:b], *data[a:b], *data[b:]], {Damage.ADDED}, a, b


def cut(data: Lines, made: random.Random) -> Changed:
    at = made.randrange(1, len(data))
    return data[:at], {Damage.CUT_SHORT}, at - 1, at


def roll_back(data: Lines, made: random.Random) -> Changed:
    """To the end of an older block, and it looks as if the session had ended there."""
    at = made.choice(chain_lines(data))
    return [*data[:at], encode_text(1, "z", "0")], {Damage.CUT_SHORT, Damage.CHANGED}, at, at


KINDS: list[Callable[[Lines, random.Random], Changed]] = [
    flip, remove_line, add_line, swap_lines, remove_block, swap_blocks, repeat_block, cut, roll_back,
]  # fmt: skip
