"""`python -P tests/bench/without_proof.py [--no-stream-hashes] serve -c FILE`: the bastion without its proof.

That is, nothing is chained, signed or brought to the disk; and with the option session.end has no SHA-256 of streams.
Only to compare with. It is a stand-in of the benchmark's own and no option of the bastion: an audit trail that its
operator can switch the proof off of proves nothing, and nobody should be able to by mistake.
"""

import os
import sys
from types import SimpleNamespace
from typing import Any

import bastion.audit.chain
import bastion.audit.signing
import bastion.recording.chain
import bastion.recording.transcript


class _NoHash:
    """Of whatever it is given."""

    def __init__(self, data: bytes = b"") -> None:
        pass

    def update(self, data: bytes) -> None:
        pass

    def copy(self) -> "_NoHash":
        return self

    def hexdigest(self) -> str:
        return "0" * 64


NO_STREAM_HASHES = "--no-stream-hashes"


def take_out_proof(*, stream_hashes_too: bool = False) -> None:
    """For this process, from now on."""
    no_hashes: Any = SimpleNamespace(sha256=_NoHash)
    for module in (bastion.audit.chain, bastion.recording.chain):
        module.hashlib = no_hashes
    if stream_hashes_too:
        bastion.recording.transcript.hashlib = no_hashes
    bastion.audit.signing.SigningKey.sign = lambda _key, _data: bytes(64)
    os.fsync = os.fdatasync = lambda _file: None


if __name__ == "__main__":
    from bastion.cli import main

    take_out_proof(stream_hashes_too=NO_STREAM_HASHES in sys.argv)
    sys.argv = [word for word in sys.argv if word != NO_STREAM_HASHES]
    main()
