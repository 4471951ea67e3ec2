"""The section `ssh`: the SSH server, in OpenSSH's terms."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bastion.config.section import Seconds, Section, unique

Network = IPv4Network | IPv6Network


def host_and_port(address: str) -> tuple[str, int]:
    """`host:port` or `[::1]:port` taken apart; raises ValueError with what would be right."""
    match = re.fullmatch(
        r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", address
    )
    if match is None or int(match["port"]) > 65535:
        raise ValueError("a host and a port is right, such as 0.0.0.0:2222 or [::1]:2222")
    return match["ipv6"] or match["host"], int(match["port"])


def _listen_address(value: str) -> str:
    host_and_port(value)
    return value


ListenAddress = Annotated[str, AfterValidator(_listen_address)]


class MaxStartups(Section):
    """OpenSSH's MaxStartups start:rate:full, for connections that have not authenticated."""

    start: int = Field(10, ge=1)
    rate: int = Field(30, ge=0, le=100)  # percent
    full: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _start_before_full(self) -> Self:
        if self.start > self.full:
            raise ValueError(f"a start that is at most full is right; start is {self.start}, full is {self.full}")
        return self


class Penalties(Section):
    """OpenSSH's PerSourcePenalties: seconds that a connection costs its network when nobody signed in on it."""

    authfail: Seconds = 5  # twice as much each time
    noauth: Seconds = 1
    grace_exceeded: Seconds = 20  # twice as much each time
    min: Seconds = 15  # from here on nobody connects from there
    max: Seconds = 600
    ipv4_prefix: int = Field(32, ge=1, le=32)  # what counts as one network (PerSourceNetBlockSize)
    ipv6_prefix: int = Field(64, ge=1, le=128)
    exempt: tuple[Network, ...] = ()  # load balancers, offices behind one address

    @model_validator(mode="after")
    def _min_before_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"a min that is at most max is right; min is {self.min}, max is {self.max}")
        return self


class Ssh(Section):
    """The SSH server, in OpenSSH's terms."""

    listen: Annotated[tuple[ListenAddress, ...], Field(min_length=1), AfterValidator(unique)] = ("0.0.0.0:2222",)
    host_keys: tuple[Path, ...] = Field(
        (Path("keys/ssh_host_ed25519_key"), Path("keys/ssh_host_rsa_key")), min_length=1
    )
    max_auth_tries: int = Field(6, ge=1)
    login_grace_time: Seconds = 60
    max_startups: MaxStartups = MaxStartups()
    penalties: Penalties = Penalties()
    max_sessions: int = Field(10, ge=1)
    client_alive_interval: Seconds = 30
    client_alive_count_max: int = Field(3, ge=1)
    rekey_bytes: int = Field(1 << 30, ge=1 << 20)
    chacha20: bool = False
    accept_env: tuple[str, ...] = ("LANG", "LC_*")
    banner: str = ""
