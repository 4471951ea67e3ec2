"""Lines of an authorized_keys file (sshd(8), AUTHORIZED_KEYS FILE FORMAT): which key, from where, until when.

An option that the bastion can not honour means that the key is not accepted: it was meant to limit the key.
"""

import base64
import binascii
import hmac
import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime

# They forbid, or allow again, what the bastion does not do at all; `restrict` is more than that, see below.
_WITHOUT_EFFECT = frozenset(
    f"{no}{what}" for what in ("agent-forwarding", "port-forwarding", "x11-forwarding", "user-rc") for no in ("", "no-")
) | {"pty", "permitopen", "permitlisten", "no-touch-required"}
_OPTION = re.compile(r'(?P<name>[A-Za-z0-9-]+)(?:="(?P<value>(?:[^"\\]|\\"|\\(?!"))*)")?(?P<end>,|[ \t]+|$)')
_ADDRESS_PATTERN = re.compile(r"[0-9A-Fa-f.:*?]+")
_EXPIRY_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """One line: the key and what limits it."""

    type: str
    blob: bytes  # RFC 4253 section 6.6
    origins: str | None = None  # from="..."
    expires: datetime | None = None
    unsupported: tuple[str, ...] = ()  # options that can not be honoured

    def is_key(self, key_type: str, key_blob: bytes) -> bool:
        """The same key, compared in a time that does not tell how much of it is right."""
        same_type = hmac.compare_digest(self.type.encode(), key_type.encode("utf-8", "surrogatepass"))
        return hmac.compare_digest(self.blob, key_blob) and same_type

    def why_not(self, source_ip: str, now: datetime) -> str | None:
        """None where the key may be used from `source_ip` at `now` (with its timezone), else why not."""
        if self.unsupported:
            return f"its options can not be honoured here: {', '.join(self.unsupported)}"
        if self.expires is not None and now >= self.expires:
            return f"it expired at {self.expires.isoformat()}"
        if self.origins is not None and not is_from(self.origins, source_ip):
            return f"from={self.origins!r} does not allow {source_ip!a}"
        return None


def parse(line: str) -> AuthorizedKey | None:
    """The key of `line`, or None for an empty line or a comment. Raises ValueError with what is wrong."""
    text = line.strip(" \t\r\n")
    if not text or text.startswith("#"):
        return None
    if not text.replace("\t", " ").isprintable():
        raise ValueError("a control character in it")
    key = _key(text)
    options: list[tuple[str, str | None]] = []
    if key is None:
        options, rest = _options(text)
        key = _key(rest)
    if key is None:
        raise ValueError("no key: 'ssh-ed25519 AAAA... comment' is right, with options in front of it if any")
    return _limited(*key, options)


def _key(text: str) -> tuple[str, bytes] | None:
    """Type and blob, where `text` starts with a key: the blob holds the type once more (RFC 4253 section 6.6)."""
    fields = text.split(None, 2)
    if len(fields) < 2:
        return None
    try:
        blob = base64.b64decode(fields[1], validate=True)
        name = fields[0].encode("ascii")
    except (binascii.Error, ValueError):
        return None
    if not blob.startswith(len(name).to_bytes(4, "big") + name) or len(blob) == 4 + len(name):
        return None
    return fields[0], blob


def _options(text: str) -> tuple[list[tuple[str, str | None]], str]:
    """The options in front of a key, names in lower case, and what follows them."""
    options, at = [], 0
    while True:
        match = _OPTION.match(text, at)
        if match is None:
            raise ValueError('options that can not be read: name,name="value" is right')
        value = match["value"]
        options.append((match["name"].lower(), None if value is None else value.replace('\\"', '"')))
        at = match.end()
        if match["end"] != ",":
            return options, text[at:]


def _limited(key_type: str, blob: bytes, options: list[tuple[str, str | None]]) -> AuthorizedKey:
    names = [name for name, _ in options]
    origins, expires, unsupported = None, None, []
    for name, value in options:
        if name == "from" and value is not None and names.count("from") == 1:
            origins = value
            unsupported += [f"from={pattern}" for pattern in _host_names_kept_out(value)]
        elif name == "expiry-time" and value is not None:
            expiry = _expiry(value)
            expires = min(expires or expiry, expiry)
        elif name == "restrict" and "pty" in names[names.index("restrict") :]:
            pass  # forbids the above, and terminals, which come back with a `pty` after it
        elif name not in _WITHOUT_EFFECT:
            unsupported.append(name)
    return AuthorizedKey(key_type, blob, origins, expires, tuple(unsupported))


def _expiry(value: str) -> datetime:
    """YYYYMMDD[HHMM[SS]], in the system's timezone, or with a Z behind it in UTC."""
    digits = value.removesuffix("Z").removesuffix("z")
    zone = UTC if digits != value else None
    if digits.isascii() and digits.isdigit() and len(digits) in _EXPIRY_FORMATS:
        try:
            time = datetime.strptime(digits, _EXPIRY_FORMATS[len(digits)])
            return time.replace(tzinfo=zone) if zone else time.astimezone()
        except (ValueError, OverflowError, OSError):
            pass
    raise ValueError("expiry-time is no time: YYYYMMDD[HHMM[SS]][Z] is right")


def is_from(patterns: str, source_ip: str) -> bool:
    """Does a from="..." list allow this address? PATTERNS and CIDR of ssh_config(5); a match after '!' forbids.

    The bastion does not ask DNS who a client is: a pattern for host names fits none.
    """
    address = _address(source_ip)
    if address is None:
        return False
    allowed = False
    for pattern in patterns.split(","):
        wanted = pattern.strip()
        fits = _fits(wanted.removeprefix("!"), address)
        if fits and wanted.startswith("!"):
            return False
        allowed = allowed or fits
    return allowed


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without an IPv6 zone
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _fits(pattern: str, address: Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern)
    except ValueError:
        wildcards = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(wildcards, str(address), re.IGNORECASE) is not None


def _host_names_kept_out(patterns: str) -> list[str]:
    """`!*.example.org` can not be honoured, since host names are not known; nor can what is no network."""
    kept_out = [pattern.strip() for pattern in patterns.split(",") if pattern.strip().startswith("!")]
    return [one for one in kept_out if not _is_for_addresses(one[1:])]


def _is_for_addresses(pattern: str) -> bool:
    try:
        ipaddress.ip_network(pattern)
    except ValueError:
        return _ADDRESS_PATTERN.fullmatch(pattern) is not None
    return True
