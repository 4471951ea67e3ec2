"""User certificates: whose signature they bear, and making them with the bastion's own CA."""

import base64
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from bastion.auth.certificate import Reader, parse
from bastion.errors import BastionError
from bastion.ssh import host_keys


def verify(key: bytes, signed: bytes, signature: bytes) -> bool:
    """Is `signature` (RFC 4253 section 6.6) by this public key? One of SHA-1 is none."""
    try:
        return Reader(signature).text() != "ssh-rsa" and _key(key).verify(signed, signature)
    except (asyncssh.KeyImportError, ValueError):
        return False


def key_in(certificate: bytes) -> asyncssh.SSHKey:
    """The key that whoever presents the certificate has to sign with; a security key has to be touched."""
    key = _key(parse(certificate).key)
    key.set_touch_required(True)
    return key


def _key(blob: bytes) -> asyncssh.SSHKey:
    return asyncssh.import_public_key(Reader(blob).string() + b" " + base64.b64encode(blob))


def make_authority(path: Path) -> bool:
    """Make the CA's key and, always, its public part beside it; False when the key was there. Raises ConfigError."""
    made = host_keys.generate(path)
    public = path.with_name(f"{path.name}.pub")
    if not public.exists():
        (key,) = host_keys.load([path])
        public.write_bytes(key.export_public_key())
    return made


def sign(
    authority: Path,
    public_key: bytes,
    user: str,
    *,
    key_id: str,
    seconds: float,
    source_address: Sequence[str] = (),
    force_command: str | None = None,
    terminal: bool = True,
) -> tuple[bytes, int]:
    """A certificate in OpenSSH's format, and its serial number. Raises ConfigError and BastionError."""
    (ca,) = host_keys.load([authority])
    try:
        key = asyncssh.import_public_key(public_key)
    except asyncssh.KeyImportError:
        raise BastionError("no public key; a line such as ssh-ed25519 AAAA... is right") from None
    now, serial = int(time.time()), secrets.randbits(63) | 1
    certificate = ca.generate_user_certificate(
        key,
        key_id,
        serial=serial,
        principals=[user],
        valid_after=now - 60,  # the other clocks
        valid_before=now + int(seconds),
        force_command=force_command,
        source_address=list(source_address),
        permit_x11_forwarding=False,
        permit_agent_forwarding=False,
        permit_port_forwarding=False,
        permit_pty=terminal,
        permit_user_rc=False,
        sig_alg=(),
    )
    return certificate.export_certificate(), serial
