"""Who signs in with an OpenSSH user certificate, and which keys are revoked."""

import base64
import time
from collections.abc import Callable
from pathlib import Path

from bastion.auth import krl
from bastion.auth.certificate import Certificate, fingerprint, parse
from bastion.auth.refusals import refused, unavailable
from bastion.auth.workers import Workers
from bastion.config import Certificates as Section
from bastion.errors import ConfigError, Reason
from bastion.model import Identity

Verify = Callable[[bytes, bytes, bytes], bool]  # key, what was signed, signature

MAX_KRL = 64 << 20  # bytes
SECONDS = 20  # for reading the file, the queue included


class RevokedKeys:
    """The file `auth.revoked_keys`, read again when it has changed. Without it nothing is revoked."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reading = Workers("revoked keys", 1, 256)
        self._version: tuple[int, ...] | None = None
        self._revoked = krl.Revoked()

    async def now(self) -> krl.Revoked:
        """Raises Unavailable: without a file that is right nobody knows which keys are good."""
        if self._path is None:
            return self._revoked
        path = self._path
        try:
            return await self._reading.run(SECONDS, lambda: self._read(path))
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise unavailable(f"auth.revoked_keys: {path}: {why}") from None

    async def close(self) -> None:
        await self._reading.close()

    def _read(self, path: Path) -> krl.Revoked:
        with path.open("rb") as file:
            status = path.stat()
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if version != self._version:
                data = file.read(MAX_KRL + 1)
                if len(data) > MAX_KRL:
                    raise ValueError(f"more than {MAX_KRL} bytes")
                self._revoked = krl.parse(data)
                # a change in the same tick of the file system's clock would not be seen
                settled = time.time_ns() - status.st_ctime_ns > 100_000_000
                self._version = version if settled else None
        return self._revoked


class Certificates:
    """The CAs that are trusted, and what they may say."""

    def __init__(self, section: Section, revoked: RevokedKeys, clock: Callable[[], float] = time.time) -> None:
        """Raises ConfigError where the own CA has no public key."""
        lines = list(section.authorities)
        if section.ca_key is not None:
            lines.append(_public_line(section.ca_key))
        self._authorities = {base64.b64decode(line.split()[1]) for line in lines}
        self._revoked = revoked
        self._clock = clock

    @property
    def fingerprints(self) -> list[str]:
        return sorted(fingerprint(key) for key in self._authorities)

    async def check(self, user: str, blob: bytes, source_ip: str, verify: Verify) -> Identity:
        """Who has this certificate, and until when; groups are not in it. Raises Refusal and Unavailable."""
        try:
            certificate = parse(blob)
        except ValueError as error:
            raise refused(Reason.CERTIFICATE_NOT_ALLOWED, f"{user}: the certificate: {error}") from None
        what = f"{user}: the certificate {certificate.key_id!r} (serial {certificate.serial})"
        if certificate.ca not in self._authorities:
            signer = fingerprint(certificate.ca)
            raise refused(Reason.UNKNOWN_AUTHORITY, f"{what}: signed by {signer}, who is not trusted")
        if not verify(certificate.ca, certificate.signed, certificate.signature):
            raise refused(Reason.BAD_SIGNATURE, f"{what}: its CA's signature does not hold")
        if problem := certificate.why_not(user, source_ip, self._clock()):
            raise refused(problem[0], f"{what}: {problem[1]}")
        if (await self._revoked.now()).revokes(certificate):
            raise refused(Reason.KEY_REVOKED, f"{what}: revoked")
        return _identity(user, blob, certificate)

    async def still(self, identity: Identity) -> bool:
        """Has nobody revoked the certificate since? Raises Unavailable."""
        assert identity.key is not None
        return not (await self._revoked.now()).revokes(parse(identity.key))


def _identity(user: str, blob: bytes, certificate: Certificate) -> Identity:
    said = {"key_id": certificate.key_id, "serial": certificate.serial, "ca": fingerprint(certificate.ca)}
    return Identity(
        user,
        "certificate",
        expires=certificate.expires,
        credential={"key": fingerprint(certificate.key), **said},
        key=blob,
        force_command=certificate.force_command,
        may_have_terminal="permit-pty" in certificate.extensions,
    )


def _public_line(ca_key: Path) -> str:
    path = ca_key.with_name(f"{ca_key.name}.pub")
    try:
        line = path.read_text("ascii")
        base64.b64decode(line.split()[1], validate=True)
    except FileNotFoundError:
        problem = f"auth.certificates.ca_key: {path} does not exist; make it with: bastion keys init"
        raise ConfigError([problem]) from None
    except (OSError, ValueError, IndexError):
        raise ConfigError([f"auth.certificates.ca_key: {path} is no public key"]) from None
    return line
