"""Which keys and certificates are revoked: OpenSSH's key revocation lists (PROTOCOL.krl), or a list of public keys.

What is not known in such a file revokes nobody knows what, so the file as a whole is refused.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from bastion.auth import publickey
from bastion.auth.certificate import Certificate, Reader

MAGIC = b"SSHKRL\n\0"
_CERTIFICATES, _KEYS, _SHA1, _SHA256, _EXTENSION = 1, 2, 3, 5, 255
_SERIALS, _RANGE, _BITMAP, _KEY_IDS, _CERT_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39


@dataclass(slots=True)
class _OfAuthority:
    """Of one CA, or of all of them."""

    serials: set[int] = field(default_factory=set)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    bitmaps: list[tuple[int, int]] = field(default_factory=list)  # offset, bits
    key_ids: set[bytes] = field(default_factory=set)

    def revokes(self, serial: int, key_id: str) -> bool:
        if key_id.encode() in self.key_ids:
            return True
        if serial == 0:  # "no serial number": sshd does not look it up either
            return False
        return (
            serial in self.serials
            or any(first <= serial <= last for first, last in self.ranges)
            or any(serial >= offset and bits >> (serial - offset) & 1 for offset, bits in self.bitmaps)
        )


class Revoked:
    """What a file revokes; empty where there is none."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()
        self._digests: set[bytes] = set()
        self._authorities: dict[bytes, _OfAuthority] = {}

    def revokes_key(self, key: bytes) -> bool:
        """`key`: RFC 4253 section 6.6."""
        digests = (hashlib.sha256(key).digest(), hashlib.sha1(key, usedforsecurity=False).digest())
        return key in self._keys or any(digest in self._digests for digest in digests)

    def revokes(self, certificate: Certificate) -> bool:
        """By its key, its CA's key, its serial number or its key id."""
        if self.revokes_key(certificate.key) or self.revokes_key(certificate.ca):
            return True
        of_both = [self._authorities.get(certificate.ca), self._authorities.get(b"")]
        return any(one.revokes(certificate.serial, certificate.key_id) for one in of_both if one is not None)

    # ---- reading ----

    def _read_krl(self, data: bytes) -> None:
        reader = Reader(data)
        reader.take(len(MAGIC))
        if (version := reader.uint32()) != 1:
            raise ValueError(f"a KRL of version {version}; 1 is known")
        for _ in range(3):  # number, date, flags
            reader.uint64()
        reader.string()  # reserved
        reader.string()  # comment
        while reader:
            kind, section = reader.byte(), Reader(reader.string())
            if kind == _CERTIFICATES:
                self._read_certificates(section)
            elif kind == _KEYS:
                _each(section, self._keys.add)
            elif kind in (_SHA1, _SHA256):
                _each(section, self._digests.add)
            elif kind == _EXTENSION:
                _extension(section)
            else:
                raise ValueError(f"a section {kind} that is not known")

    def _read_certificates(self, section: Reader) -> None:
        authority = self._authorities.setdefault(section.string(), _OfAuthority())
        section.string()  # reserved
        while section:
            kind, part = section.byte(), Reader(section.string())
            if kind == _SERIALS:
                while part:
                    authority.serials.add(part.uint64())
            elif kind == _RANGE:
                authority.ranges.append((part.uint64(), part.uint64()))
                part.end()
            elif kind == _BITMAP:
                authority.bitmaps.append((part.uint64(), int.from_bytes(part.string(), "big")))
                part.end()
            elif kind == _KEY_IDS:
                _each(part, authority.key_ids.add)
            elif kind == _CERT_EXTENSION:
                _extension(part)
            else:
                raise ValueError(f"a section {kind:#x} on certificates that is not known")

    def _read_list(self, data: bytes) -> None:
        for number, line in enumerate(data.decode().splitlines(), 1):
            try:
                key = publickey.parse(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if key is not None:
                self._keys.add(key.blob)


def parse(data: bytes) -> Revoked:
    """Raises ValueError with what is wrong; nothing is revoked by half."""
    revoked = Revoked()
    if data.startswith(MAGIC):
        revoked._read_krl(data)
    else:
        revoked._read_list(data)
    return revoked


def _each(reader: Reader, add: Callable[[bytes], None]) -> None:
    while reader:
        add(reader.string())


def _extension(reader: Reader) -> None:
    name, critical = reader.text(), reader.byte()
    reader.string()
    reader.end()
    if critical:
        raise ValueError(f"an extension {name} that is critical and not known")
