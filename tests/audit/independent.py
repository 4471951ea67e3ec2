"""A verifier by docs/proof.md alone: nothing of bastion is imported. Usage: PUBLIC_KEY FILE..."""

import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MARK = b', "signature": "'


def entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    linked = isinstance(found, dict) and isinstance(found.get("seq"), int) and isinstance(found.get("prev"), str)
    return found if linked else None


def lines(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Each line with its newline, in the order of the entries."""
    files = []
    for path in paths:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        found = data.splitlines(keepends=True)
        first = next((fields["seq"] for line in found if (fields := entry(line))), None)
        if first is not None:
            files.append((first, path.name, found))
    for _, name, found in sorted(files):
        yield from ((f"{name}:{number}", line) for number, line in enumerate(found, 1))


def signed(line: bytes, key: Ed25519PublicKey) -> bool:
    covered, _, rest = line.rpartition(MARK)
    try:
        key.verify(base64.b64decode(rest.removesuffix(b'"}')), covered)
    except (InvalidSignature, ValueError):
        return False
    return True


def problem(key: Ed25519PublicKey, paths: list[Path]) -> str | None:
    """The first, or None."""
    seq, prev, torn, heads = 0, "", b"", 0
    for place, line in lines(paths):
        fields = entry(line) if line.endswith(b"\n") else None
        if fields is None:
            torn += line
            continue
        if seq == 0:
            if fields["seq"] != 1 and not fields.get("begins"):
                return f"{place}: the beginning is missing"
            seq, prev = fields["seq"] - 1, "0" * 64 if fields["seq"] == 1 else fields["prev"]
        if fields["seq"] != seq + 1 or fields["prev"] != prev:
            return f"{place}: does not follow"
        left = torn.removesuffix(b"#\n")
        if (hashlib.sha256(left).hexdigest() if left else None) != fields.get("torn"):
            return f"{place}: what is in front of it is not what a crash had left"
        raw = line.removesuffix(b"\n")
        if fields["event"] == "audit.head":
            heads += 1
            if not signed(raw, key):
                return f"{place}: the signature is not that of the key"
        seq, prev, torn = fields["seq"], hashlib.sha256(raw).hexdigest(), b""
    return None if heads else "no signed head"


if __name__ == "__main__":
    raw = base64.b64decode(sys.argv[1].split()[1])[-32:]
    found = problem(Ed25519PublicKey.from_public_bytes(raw), [Path(name) for name in sys.argv[2:]])
    print(found or "as it was written")
    sys.exit(1 if found else 0)
