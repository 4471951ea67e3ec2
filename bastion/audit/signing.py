"""The key that signs the audit log: Ed25519 (RFC 8032), made once, never overwritten, and nobody else may read it."""

import base64
import contextlib
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from bastion.config import key_file
from bastion.errors import BastionError, ConfigError


class PublicKey:
    """Says whether a signature is the key's. `line` is the key as OpenSSH writes it."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        digest = hashlib.sha256(base64.b64decode(self.line.split()[1])).digest()
        self.fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def signed(self, data: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """Signs, and has the public key that verifies."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def generate(path: Path) -> bool:
    """Make the private key `path` (mode 0600, whole or not at all); False where there is something. ConfigError."""
    if os.path.lexists(path):
        return False
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return key_file.create(path, key)


def load(path: Path) -> SigningKey:
    """The key of the option audit.signing_key. ConfigError."""
    try:
        return SigningKey(_private(path))
    except ValueError as error:
        raise ConfigError([f"audit.signing_key: {path} {error}"]) from None


def public_key(text: str) -> PublicKey:
    """The key of a line as `bastion keys init` prints it: ssh-ed25519 AAAA... BastionError."""
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        key = load_ssh_public_key(text.strip().encode())
        if isinstance(key, Ed25519PublicKey):
            return PublicKey(key)
    raise BastionError("this is no public key of the audit log; `ssh-ed25519 AAAA...` is right: bastion keys init")


def _private(path: Path) -> Ed25519PrivateKey:
    """Raises ValueError with a predicate: "is ..."."""
    data = key_file.read(path)
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        key = load_ssh_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise ValueError(
        "is no Ed25519 key without a passphrase; make another with: bastion keys init, once it is out of the way"
    )
