"""A try whether a server of the configuration is there and does what it is for: `bastion check-config --connect`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """`ask` returns what it found, in a few words; it raises what the server's callers would meet."""

    kind: str  # "LDAP"
    server: str
    ask: Callable[[], Awaitable[str]]
