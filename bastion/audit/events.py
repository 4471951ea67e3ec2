"""The catalogue of audit events, and how one becomes a line: always exactly one, of JSON in printable ASCII."""

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from itertools import islice

TEXT_LIMIT = 4096  # characters of a value; what is longer is cut, and says so
ITEM_LIMIT = 256  # characters of a text inside a list or mapping
ITEMS_LIMIT = 64  # items of a list or mapping
DEPTH_LIMIT = 2  # a mapping of mappings (the streams of session.end); what is deeper becomes text

CONNECTION = frozenset({"connection_id", "source_ip", "source_port"})
SESSION = frozenset({"connection_id", "session_id", "user", "source_ip", "address", "container_id", "engine"})
ALWAYS = frozenset({"time", "event", "id", "bastion_id", "seq", "prev"})  # set by the log itself
CHAIN = frozenset({"torn", "signature"})  # and these where they are needed


class Event(StrEnum):
    """What is remembered. `required` are the fields that an event of this name always has, beside ALWAYS."""

    required: frozenset[str]

    def __new__(cls, name: str, required: Iterable[str]) -> "Event":
        event = str.__new__(cls, name)
        event._value_ = name
        event.required = frozenset(required)
        return event

    CONNECTION_OPEN = "connection.open", CONNECTION
    CONNECTION_CLOSE = "connection.close", CONNECTION | {"seconds"}
    SOURCE_PENALISED = "source.penalised", {"source_ip", "network", "offence", "seconds"}
    USER_LOGIN = "user.login", CONNECTION | {"user", "method"}
    USER_LOGIN_FAILED = "user.login_failed", CONNECTION | {"user", "method", "reason"}
    USER_SECOND_FACTOR = "user.second_factor", {"user", "change", "by"}
    CERTIFICATE_ISSUED = "certificate.issued", {"user", "key_id", "serial", "key", "ca", "seconds", "by"}
    ACCESS_DENIED = "access.denied", CONNECTION | {"user", "reason"}
    SESSION_START = "session.start", SESSION | {"terminal", "command", "rule", "recording"}
    SESSION_RESIZE = "session.resize", SESSION | {"columns", "rows"}
    SESSION_KILLED = "session.killed", SESSION | {"by", "why"}
    SESSION_END = "session.end", SESSION | {"status", "exit_status"}
    SESSION_COMMAND = "session.command", SESSION | {"content", "confidence", "at", "prompt", "degraded"}
    COMMAND_DENIED = "command.denied", SESSION | {"content", "rule"}
    COMMAND_ALERTED = "command.alerted", SESSION | {"content", "rule"}
    RECORDING_FAILED = "recording.failed", SESSION | {"reason"}
    RECORDING_VIEWED = "recording.viewed", {"user", "session_id"}
    RECORDING_PRUNED = "recording.pruned", {"user", "session_id", "recording"}
    AUDIT_SEARCHED = "audit.searched", {"user", "what", "filters"}
    ALERT_RAISED = "alert.raised", {"rule"}
    CONFIG_RELOADED = "config.reloaded", ()
    # the log about itself: a sink is away, and is back with so many events that it will never have
    AUDIT_FAILED = "audit.failed", {"sink", "reason"}
    AUDIT_REOPENED = "audit.reopened", ()
    AUDIT_RECOVERED = "audit.recovered", {"sink", "dropped"}
    AUDIT_CAUGHT_UP = "audit.caught_up", {"sink", "late", "removed"}
    # the chain about itself: chain.py
    AUDIT_HEAD = "audit.head", {"key"}
    AUDIT_VERIFIED = "audit.verified", {"begins", "entries", "findings"}
    AUDIT_ACKNOWLEDGED = "audit.acknowledged", {"user", "why", "findings"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One audit event: its fields as JSON has them, and its line without the newline."""

    fields: Mapping[str, object]
    line: str


def entry(event: Event, bastion_id: str, fields: Mapping[str, object]) -> Entry:
    """Make the entry of an event that happens now; the chain gives it its place. TypeError where a field is missing or
    is the log's own.
    """
    if missing := event.required - fields.keys():
        raise TypeError(f"{event} needs {', '.join(sorted(missing))}")
    if own := (ALWAYS | CHAIN) & fields.keys():
        raise TypeError(f"{event}: {', '.join(sorted(own))} is set by the audit log")
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    values = {"time": time, "event": event.value, "id": uuid.uuid4().hex, "bastion_id": bastion_id, **fields}
    clean = {name: json_value(value) for name, value in values.items()}
    return Entry(clean, json.dumps(clean, ensure_ascii=True, allow_nan=False))


def plain_text(value: str) -> str:
    r"""`value` as text that UTF-8 can carry: a lone surrogate (PEP 383: a byte that was no UTF-8) is spelt \udc80.

    JSON could carry it, but many readers (serde, jsonb) refuse the whole line, which would hide an event.
    """
    return value.encode("utf-8", "backslashreplace").decode()


def json_value(value: object, limit: int = TEXT_LIMIT, depth: int = DEPTH_LIMIT) -> object:
    """`value` as JSON can carry it, cut where it is too long: never an error, whatever it is."""
    try:
        return _json_value(value, limit, depth)
    except Exception:  # an object that can not even be shown
        return f"<{type(value).__name__}>"


def _json_value(value: object, limit: int, depth: int) -> object:  # noqa: PLR0911 - one for each type
    match value:
        case Enum():
            return json_value(value.value, limit, depth)
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str():
            text = plain_text(value[:limit])
            return text if len(value) <= limit else f"{text}...(cut, {len(value)} characters)"
        case bytes() | bytearray():
            text = value[:limit].decode("utf-8", "backslashreplace")
            return text if len(value) <= limit else f"{text}...(cut, {len(value)} bytes)"
        case Mapping() if depth:
            items = islice(value.items(), ITEMS_LIMIT)
            clean = {str(json_value(k, ITEM_LIMIT, 0)): json_value(v, ITEM_LIMIT, depth - 1) for k, v in items}
            return clean | ({"...": f"(cut, {len(value)} items)"} if len(value) > ITEMS_LIMIT else {})
        case set() | frozenset() if depth:
            return json_value(sorted(value, key=repr), limit, depth)
        case list() | tuple() if depth:
            cut = [f"...(cut, {len(value)} items)"] if len(value) > ITEMS_LIMIT else []
            return [json_value(item, ITEM_LIMIT, depth - 1) for item in value[:ITEMS_LIMIT]] + cut
    return json_value(str(value), limit)
