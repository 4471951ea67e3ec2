"""OpenSSH user certificates (PROTOCOL.certkeys), as the bytes have them: what they say, and what speaks against it.

Nothing in here trusts one: whose signature it bears is for the caller to verify.
"""

import base64
import hashlib
import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bastion.errors import Reason

_SUFFIX = "-cert-v01@openssh.com"
# How many strings of the blob are the key, by its type (RFC 4253 section 6.6, RFC 5656, RFC 8709, PROTOCOL.u2f).
_FIELDS = {
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-ed25519": 1,
    "sk-ssh-ed25519": 2,
    "sk-ecdsa-sha2-nistp256": 3,
}
_USER = 1  # SSH_CERT_TYPE_USER
FOREVER = 2**64 - 1
FORCE_COMMAND, SOURCE_ADDRESS = "force-command", "source-address"


class Reader:
    """The types of RFC 4251 section 5, one after the other. Raises ValueError where the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at(self) -> int:
        return self._at

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise ValueError("it is cut short")
        self._at += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def uint32(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def uint64(self) -> int:
        return int(struct.unpack(">Q", self.take(8))[0])

    def string(self) -> bytes:
        return self.take(self.uint32())

    def text(self) -> str:
        try:
            return self.string().decode()
        except UnicodeDecodeError:
            raise ValueError("a text in it is not UTF-8") from None

    def end(self) -> None:
        if self:
            raise ValueError("something follows its end")


def string(data: bytes) -> bytes:
    """As RFC 4251 section 5 has it."""
    return len(data).to_bytes(4, "big") + data


def fingerprint(blob: bytes) -> str:
    """Of a public key, as ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Certificate:
    """`signed` is what `signature` by the key `ca` is about; times are seconds since 1970."""

    key: bytes  # the plain public key: RFC 4253 section 6.6
    serial: int
    kind: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical: Mapping[str, bytes]
    extensions: Mapping[str, bytes]
    ca: bytes
    signed: bytes
    signature: bytes

    @property
    def expires(self) -> datetime | None:
        """None where that is never, or beyond what a calendar has."""
        try:
            return datetime.fromtimestamp(self.valid_before, UTC)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def force_command(self) -> str | None:
        """Raises ValueError."""
        return self._option(FORCE_COMMAND)

    def why_not(self, user: str, source_ip: str, now: float) -> tuple[Reason, str] | None:
        """None where it is a certificate of `user`, to be used from there now; else why not, as sshd has it."""
        names = ", ".join(self.principals[:5]) or "nobody: it has no principals"
        unknown = sorted(self.critical.keys() - {FORCE_COMMAND, SOURCE_ADDRESS})
        problems = [
            (self.kind != _USER, Reason.CERTIFICATE_NOT_ALLOWED, "it is no user certificate"),
            (user not in self.principals, Reason.WRONG_PRINCIPAL, f"it is for {names}"),
            (
                now < self.valid_after,
                Reason.CERTIFICATE_NOT_YET_VALID,
                f"it begins in {self.valid_after - now:.0f} s",
            ),
            (now >= self.valid_before, Reason.CERTIFICATE_EXPIRED, f"it ended {now - self.valid_before:.0f} s ago"),
            (
                bool(unknown),
                Reason.CERTIFICATE_NOT_ALLOWED,
                f"critical options not known: {', '.join(unknown)}",
            ),
        ]
        for wrong, reason, text in problems:
            if wrong:
                return reason, text
        return self._why_not_from(source_ip)

    def _why_not_from(self, source_ip: str) -> tuple[Reason, str] | None:
        try:
            _ = self.force_command
            addresses = self._option(SOURCE_ADDRESS)
            if addresses is None:
                return None
            networks = [ipaddress.ip_network(one) for one in addresses.split(",")]
        except ValueError as error:
            return Reason.CERTIFICATE_NOT_ALLOWED, f"a critical option can't be read: {error}"
        address = ipaddress.ip_address(source_ip.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address in network for network in networks):
            return None
        return Reason.CERTIFICATE_NOT_ALLOWED, f"source-address {addresses} does not allow {source_ip}"

    def _option(self, name: str) -> str | None:
        if name not in self.critical:
            return None
        data = Reader(self.critical[name])
        value = data.text()
        data.end()
        return value


def is_certificate(blob: bytes) -> bool:
    """Does this key of RFC 4253 section 6.6 say that it is one?"""
    try:
        return Reader(blob).string().endswith(_SUFFIX.encode())
    except ValueError:
        return False


def parse(blob: bytes) -> Certificate:
    """Raises ValueError with what is wrong."""
    data = Reader(blob)
    name = data.text()
    base = name.removesuffix(_SUFFIX)
    if base == name or base not in _FIELDS:
        raise ValueError("no certificate of a kind that is known")
    key_type = f"{base}@openssh.com" if base.startswith("sk-") else base
    data.string()  # nonce
    fields = [data.string() for _ in range(_FIELDS[base])]
    serial, kind, key_id = data.uint64(), data.uint32(), data.text()
    principals = _texts(data.string())
    valid_after, valid_before = data.uint64(), data.uint64()
    critical, extensions = _options(data.string()), _options(data.string())
    data.string()  # reserved
    ca = data.string()
    signed = blob[: data.at]
    signature = data.string()
    data.end()
    key = b"".join(string(one) for one in (key_type.encode(), *fields))
    return Certificate(
        key, serial, kind, key_id, principals, valid_after, valid_before, critical, extensions, ca, signed, signature
    )


def _texts(data: bytes) -> tuple[str, ...]:
    reader, texts = Reader(data), []
    while reader:
        texts.append(reader.text())
    return tuple(texts)


def _options(data: bytes) -> dict[str, bytes]:
    reader = Reader(data)
    options: dict[str, bytes] = {}
    while reader:
        name, value = reader.text(), reader.string()
        if name in options:
            raise ValueError(f"the option {name} is there twice")
        options[name] = value
    return options
