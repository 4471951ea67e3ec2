"""The tables. At run time the bastion's role may insert, read, and update UPDATABLE: nothing else."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from bastion.audit.events import plain_text

ACTIVE = "active"  # the status of a session that runs; how it ended is the session's word
REFUSED = "refused"  # it was not begun after all
LOST = "lost"  # was active when the bastion crashed; found so at its next start


class SafeText(TypeDecorator[str]):
    """Text that either database takes: NUL (PostgreSQL refuses it) and lone surrogates are spelt out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else plain_text(str(value)).replace("\0", "\\x00")


class Utc(TypeDecorator[datetime]):
    """A moment, aware and in UTC on the way out as well; SQLite keeps it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


POSITION = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData()

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", SafeText, primary_key=True),
    Column("connection_id", SafeText, nullable=False),
    Column("bastion_id", SafeText, nullable=False),
    Column("user", SafeText, nullable=False),
    Column("source_ip", SafeText, nullable=False),
    Column("app_name", SafeText, nullable=False),
    Column("proc_name", SafeText),
    Column("instance_no", BigInteger),
    Column("engine", SafeText, nullable=False),
    Column("container_id", SafeText, nullable=False),
    Column("node_ip", SafeText),
    Column("terminal", Boolean, nullable=False),
    Column("command", SafeText),  # null: a shell
    Column("status", SafeText, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("updated_at", Utc, nullable=False),
    Index("sessions_created_at", "created_at"),
    Index("sessions_user_created_at", "user", "created_at"),
    Index("sessions_status", "status", "bastion_id"),
)
UPDATABLE = {"sessions": ("status", "ended_at", "updated_at")}

commands = Table(
    "commands",
    metadata,
    Column("position", POSITION, Identity(always=True), primary_key=True),
    Column("command_id", SafeText, nullable=False, unique=True),  # the id of its event
    Column("session_id", SafeText, ForeignKey("sessions.session_id"), nullable=False),
    Column("user", SafeText, nullable=False),
    Column("app_name", SafeText, nullable=False),
    Column("address", SafeText, nullable=False),
    Column("content", SafeText, nullable=False),  # with an index of its trigrams; see migrations/versions/0003
    Column("confidence", SafeText, nullable=False),
    Column("prompt", SafeText, nullable=False),
    Column("at", Double, nullable=False),  # seconds into the recording
    Column("degraded", Boolean, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index("commands_session_id", "session_id"),
    Index("commands_created_at", "created_at"),
    Index("commands_user_position", "user", "position"),
    Index("commands_app_name_position", "app_name", "position"),
)

events = Table(
    "events",
    metadata,
    # The order in which they become visible: readers go on from the last that they have (migrations/versions/0003).
    # `id` is the event's own, so that a write may be repeated.
    Column("position", POSITION, Identity(always=True), primary_key=True),
    Column("id", SafeText, nullable=False, unique=True),
    Column("time", Utc, nullable=False),
    Column("event", SafeText, nullable=False),
    Column("bastion_id", SafeText, nullable=False),
    Column("connection_id", SafeText),
    Column("session_id", SafeText),
    Column("user", SafeText),
    Column("source_ip", SafeText),
    Column("address", SafeText),
    Column("container_id", SafeText),
    Column("engine", SafeText),
    Column("reason", SafeText),
    Column("entry", SafeText, nullable=False),  # the whole event, byte for byte as in the file
    Index("events_time", "time"),
    Index("events_session_id", "session_id"),
    Index("events_user_time", "user", "time"),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), Identity(always=True), primary_key=True),
    Column("user", SafeText, nullable=False),
    Column("secret", LargeBinary),  # encrypted; null: taken away
    Column("created_at", Utc, nullable=False),
    Index("enrolments_user", "user", "position"),
)

used_codes = Table(
    "used_codes",
    metadata,
    Column("enrolment", ForeignKey("enrolments.position"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),  # of RFC 6238
    Column("used_at", Utc, nullable=False),
)
