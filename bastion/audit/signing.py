"""The key that signs the audit log: Ed25519 (RFC 8032), made once, never overwritten, and nobody else may read it."""

import base64
import contextlib
import hashlib
import os
import shlex
import stat
import tempfile
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

from bastion.errors import BastionError, ConfigError

MAX_BYTES = 64 * 1024


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
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(descriptor)
            os.link(unfinished, path)  # unlike a rename, never over a key that somebody made meanwhile
        finally:
            Path(unfinished).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError([f"{path}: can not be made: {error.strerror}"]) from None
    return True


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
    try:
        # O_NONBLOCK: a FIFO would otherwise wait here for its writer
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            _check(path, os.fstat(file.fileno()))
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ValueError("does not exist; make it with: bastion keys init") from None
    except OSError as error:
        raise ValueError(f"can not be read: {error.strerror}") from None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        key = load_ssh_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise ValueError(
        "is no Ed25519 key without a passphrase; make another with: bastion keys init, once it is out of the way"
    )


def _check(path: Path, status: os.stat_result) -> None:
    """Nobody but the owner; what root gives its service's group to read is fine."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a file; a private key is right")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007 or (mode & 0o077 and status.st_uid == os.geteuid()):
        raise ValueError(f"has mode {mode:04o}: others can read it; mend it with: chmod 600 {shlex.quote(str(path))}")
