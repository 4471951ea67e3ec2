"""Encryption of a recording: the bastion can write it and not read it, the holder of a private key can.

Lines are compressed by one zstd stream that is flushed with each append, so that every append can be read as soon as it
is on file; and each append is one ChaCha20-Poly1305 message (RFC 8439) with its number as the nonce, under a key of the
recording's own. That key is in the header, encrypted by age (https://age-encryption.org/v1) to all recipients.
docs/recording.md has the format.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pybase64
import pyrage
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bastion.errors import BastionError, printable

# A window of 32 KiB keeps a session's compressor at some 40 kB of memory in use.
_COMPRESSION = zstandard.ZstdCompressionParameters(
    window_log=15, hash_log=12, chain_log=12, search_log=1, min_match=4, strategy=zstandard.STRATEGY_FAST
)


class SealingError(BastionError):
    """What is encrypted can not be read, or a key is none; the text says why."""


class Sealer:
    """Encrypts one recording, append by append. `header` is the part of its header that a reader needs."""

    def __init__(self, recipients: Sequence[str]) -> None:
        key = os.urandom(32)
        wrapped = pyrage.encrypt(key, [pyrage.x25519.Recipient.from_str(text) for text in recipients])
        self.header = {"recipients": list(recipients), "key": pybase64.b64encode(wrapped).decode("ascii")}
        self._cipher = ChaCha20Poly1305(key)
        self._compressor = zstandard.ZstdCompressor(compression_params=_COMPRESSION).compressobj()
        self._count = 0

    def seal(self, lines: bytes) -> bytes:
        """One line that holds `lines`. To be written in the order that they were made in."""
        packed = self._compressor.compress(lines) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        sealed = self._cipher.encrypt(_nonce(self._count), packed, None)
        line = b'[%d, "s", "%b"]\n' % (self._count, pybase64.b64encode(sealed))
        self._count += 1
        return line

    def end(self) -> bytes:
        """The last line, in clear: nothing follows."""
        return b'[%d, "z", ""]\n' % self._count


class Unsealer:
    """Reads one recording that Sealer wrote, with private keys. Raises SealingError where none of them fits."""

    def __init__(self, header: object, identities: Sequence[str]) -> None:
        try:
            recipients = [str(text) for text in header["recipients"]]  # type: ignore[index] # what it holds is tried
            wrapped = pybase64.b64decode(header["key"], validate=True)  # type: ignore[index] # what is no mapping is caught
        except (ValueError, KeyError, TypeError) as error:
            raise SealingError("the recording is encrypted, and its header does not say how") from error
        if not identities:
            raise SealingError(f"the recording is encrypted; it takes the private key of {_shown(recipients)}")
        try:
            keys = [pyrage.x25519.Identity.from_str(identity) for identity in identities]
            self._cipher = ChaCha20Poly1305(pyrage.decrypt(wrapped, keys))
        except (pyrage.DecryptError, ValueError):
            raise SealingError(f"the recording is encrypted to {_shown(recipients)}; this is another key") from None
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._count = 0

    def unseal(self, text: str) -> bytes:
        """The lines in the next of the sealed lines. Raises SealingError."""
        try:
            packed = self._cipher.decrypt(_nonce(self._count), pybase64.b64decode(text, validate=True), None)
            self._count += 1
            return self._decompressor.decompress(packed)
        except (InvalidTag, ValueError, zstandard.ZstdError) as error:
            raise SealingError("not what the bastion encrypted there") from error


def generate() -> tuple[str, str]:
    """A new pair: the private key, for who may read recordings, and the public one, for the configuration."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def read_identities(path: Path) -> list[str]:
    """The private keys in a file such as age-keygen writes. Raises SealingError."""
    shown = printable(str(path))
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        for line in found:
            pyrage.x25519.Identity.from_str(line)
    except OSError as error:
        raise SealingError(f"{shown} can not be read: {error.strerror}") from None
    except (pyrage.IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        raise SealingError(f"{shown}: one private key a line, AGE-SECRET-KEY-1..., is right")
    return found


def sealed_part(header: bytes) -> object | None:
    """What the header line says of the encryption; None where there is none."""
    try:
        fields = json.loads(header)
    except ValueError:
        return None
    ours = fields.get("bastion") if isinstance(fields, dict) else None
    return ours.get("sealed") if isinstance(ours, dict) else None


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "big")


def _shown(recipients: Sequence[str]) -> str:
    return " or ".join(printable(text) for text in recipients)
