"""Frozen facts that the rooms hand to each other. No logic."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

# An app or a process: ASCII, so that no two look alike; never `-1`, never an empty part between dots.
NAME = re.compile(r"(?!.{129})[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*")
# An instance, written in one way only: 007 is none, and what has ten digits counts nothing.
INSTANCE = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who authenticated."""

    user: str
    method: str  # how: "local-password", "local-publickey", "ldap", ...
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, object] = field(default_factory=dict)
    expires: datetime | None = None  # with its timezone: when the credential ends, where it does
    second_factor: str | None = None  # which one was given: "totp"
    token: str | None = field(default=None, repr=False, compare=False)  # for servers that are asked in their name
    credential: Mapping[str, object] = field(default_factory=dict)  # what the log has about it: key, serial...
    key: bytes | None = None  # the public key or the certificate that it was (RFC 4253 section 6.6)
    force_command: str | None = None  # instead of whatever the client asks for
    may_have_terminal: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """`[cluster/]app[.proc[.instance]]`; a part that is None was left out and fits any."""

    app: str
    proc: str | None = None
    instance: int | None = None
    cluster: str | None = None

    def __str__(self) -> str:
        parts = [self.app]
        if self.proc is not None:
            parts.append(self.proc)
        if self.instance is not None:
            parts.append(str(self.instance))
        return (f"{self.cluster}/" if self.cluster else "") + ".".join(parts)


class ContainerState(StrEnum):
    """State.Status of the Docker API's ContainerInspect, as far as a session cares."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # created, exited, dead, restarting, removing


@dataclass(frozen=True, slots=True)
class Container:
    """What an address resolves to. `address` is complete: app, proc, instance (and cluster where one is set)."""

    engine: str  # name of the engine in the configuration
    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    state: ContainerState
    address: Address
    protected: bool = False  # the bastion's own containers: never entered


@dataclass(frozen=True, slots=True)
class Terminal:
    """What pty-req says (RFC 4254 section 6.2); the size in characters."""

    term: str
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Decision:
    """May this identity enter this container? `rule` names what decided, for the audit log."""

    allowed: bool
    rule: str
    lacks_second_factor: bool = False  # else it would be allowed


class Stream(StrEnum):
    """The byte streams of a session; values are their asciicast event codes."""

    INPUT = "i"
    OUTPUT = "o"
    ERROR = "e"


class Confidence(StrEnum):
    """How sure it is that a command's line is what was run."""

    EXACT = "exact"
    LIKELY = "likely"
    INPUT = "input"  # a line that a program other than a shell read
    UNECHOED = "unechoed"  # typed without echo: that it was, never what it was


@dataclass(frozen=True, slots=True)
class Command:
    """One line that was run, reconstructed from the terminal."""

    content: str
    confidence: Confidence
    at: float  # seconds into the recording
    prompt: str = ""  # what stood left of it
    degraded: bool = False  # the detector was overloaded before it: lines may be missing


Chunk = tuple[Stream, bytes]
