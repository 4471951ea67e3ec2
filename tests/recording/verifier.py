"""Verifies a recording by what docs/recording.md says, and imports nothing of bastion.

verifier.py FILE [BYTES BLOCKS SHA256]: the three are what `session.end` has under `recording`.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

CHAIN = re.compile(rb'\[[0-9.]+, "h", "(\d+) ([0-9a-f]{64})"\]\n')


def verify(path: str, remembered: tuple[int, int, str] | None) -> str | None:
    """The first thing that is wrong."""
    if path.endswith(".zst"):
        unpacked = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=False)
        if unpacked.returncode != 0:
            return "it can not be decompressed"
        data = unpacked.stdout
    else:
        data = Path(path).read_bytes()
    lines = data.splitlines(keepends=True)
    blocks, block, began = 1, hashlib.sha256(), 1
    for number, line in enumerate(lines, start=1):
        if chain := CHAIN.fullmatch(line):
            if (int(chain[1]), chain[2].decode()) != (blocks, block.hexdigest()):
                return f"lines {began} to {number - 1} are not what was written"
            blocks, block, began = blocks + 1, hashlib.sha256(), number
        block.update(line)
        if re.match(rb'\[[0-9.]+, "z", ', line) and number < len(lines):
            return f"line {number + 1} comes after the end"
    if remembered is not None and (len(data), blocks, block.hexdigest()) != remembered:
        return f"lines from {began} on are not what the log remembers"
    return None


if __name__ == "__main__":
    wrong = verify(sys.argv[1], (int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]) if len(sys.argv) > 2 else None)
    print(wrong or "as it was written")
    sys.exit(wrong is not None)
