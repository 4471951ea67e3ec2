"""How a server is asked over HTTP, and which URLs a token or a secret may be sent to."""

import ipaddress
from urllib.parse import urlsplit

from bastion.config.section import InputFile, Seconds, Section


class Remote(Section):
    """What sections of servers that are asked over HTTP have in common."""

    timeout: Seconds = 5  # for one question
    ca_file: InputFile | None = None  # none: the system's
    allow_cleartext: bool = False  # http:// beyond this machine

    def check_url(self, name: str, url: str) -> None:
        """Raises ValueError with what would be right for the option `name`."""
        problem = why_not_url(url, allow_cleartext=self.allow_cleartext)
        if problem is not None:
            raise ValueError(f"{name}: {problem}")


def why_not_url(value: str, *, allow_cleartext: bool) -> str | None:
    """None for https://, and for http:// within this machine or where it is allowed; else what would be right."""
    right = "https://host, with a port and a path where there are some, is right"
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return right
    if (
        parts.scheme not in ("https", "http")
        or not host
        or " " in value
        or not value.isascii()
        or not value.isprintable()
    ):
        return right
    if parts.username is not None or parts.password is not None:
        return f"{right}; a name and a password do not belong into it"
    if parts.scheme == "http" and not allow_cleartext and not _is_here(host):
        return "http:// would show tokens to the network: https:// is right (allow_cleartext: true if it is meant so)"
    return None


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
