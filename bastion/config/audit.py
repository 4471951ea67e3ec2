"""The sections `database` and `audit`: what is remembered."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bastion.config.section import InputFile, Seconds, Section, unique
from bastion.config.ssh import host_and_port


def _database_url(value: SecretStr) -> SecretStr:
    """Says nothing of the URL but its driver: the rest may be a password."""
    right = "sqlite+aiosqlite:///file or postgresql+psycopg://user:password@host/database is right"
    try:
        driver = make_url(value.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        raise ValueError(f"{right}; this is no database URL") from None
    if driver not in ("sqlite+aiosqlite", "postgresql+psycopg"):
        raise ValueError(f"{right}; the driver here is {driver!r}")
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]


class Database(Section):
    """SQLAlchemy URL; sqlite+aiosqlite or postgresql+psycopg."""

    url: DatabaseUrl = SecretStr("sqlite+aiosqlite:///bastion.db")

    def resolved(self, folder: Path) -> Self:
        url = make_url(self.url.get_secret_value())
        if url.drivername != "sqlite+aiosqlite" or url.database in (None, "", ":memory:"):
            return self
        url = url.set(database=str(folder / str(url.database)))
        return self.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})


class Syslog(Section):
    """A syslog server (RFC 5424)."""

    url: str
    ca_file: InputFile | None = None
    facility: Literal[
        "auth", "authpriv", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
    ] = "authpriv"

    @field_validator("url")
    @classmethod
    def _somewhere(cls, value: str) -> str:
        found = re.fullmatch(r"unix:///.+|(?:udp|tcp|tls)://([^/@?#]+)", value)
        if found is None or not value.isprintable():
            raise ValueError("udp://host:514, tcp://host:601, tls://host:6514 or unix:///dev/log is right")
        if found[1] is not None:
            host_and_port(found[1])
        return value

    @model_validator(mode="after")
    def _certificates_are_for_tls(self) -> Self:
        if self.ca_file is not None and not self.url.startswith("tls://"):
            raise ValueError("ca_file with tls://host:6514 is right")
        return self


class Audit(Section):
    """The audit log: one JSON object a line, each with the hash of the one before."""

    file: Path | None = Path("audit.jsonl")
    stdout: bool = False
    rotate_bytes: int | None = Field(None, ge=1)
    rotate_every: Literal["hour", "day", "week"] | None = None  # in UTC
    syslog: Syslog | None = None
    auditors: tuple[str, ...] = ()  # alice, @group: who may see everything
    owners_may_read: bool = False  # an app's owner may see its sessions
    mode: Literal["strict", "best_effort"] = "strict"
    signing_key: Path = Path("keys/audit_key")
    anchor: Path | None = None  # signed heads once more, where whoever changes the file does not get at them
    head_events: int = Field(100, ge=1)
    head_interval: Seconds = 60
    commit_delay: float = Field(0, ge=0, le=0.05)  # seconds that an event waits for others, to share their fsync

    @model_validator(mode="after")
    def _some_sink(self) -> Self:
        if self.file is None and not self.stdout:
            raise ValueError("at least one place for the audit log is right: file, or stdout: true")
        return self

    @field_validator("auditors")
    @classmethod
    def _names(cls, auditors: tuple[str, ...]) -> tuple[str, ...]:
        for one in auditors:
            if one in {"", "@"} or not one.isprintable() or any(char in one for char in "*, "):
                raise ValueError(f"the name of a user, or @group, is right; one of these is {one!r}")
        return unique(auditors)
