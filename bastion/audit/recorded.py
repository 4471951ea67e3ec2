"""What the log says of recordings: that one was begun, where it ended, and that it was removed by policy. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bastion.audit.chain import parse
from bastion.audit.events import Event
from bastion.audit.verify import Line


@dataclass(slots=True)
class Recorded:
    """Of one session. An end is that of recording.chain.End: bytes, blocks, sha256."""

    over: bool = False  # session.end is there
    end: Mapping[str, Any] | None = None  # None: not over, or there was nothing that could be recorded to
    tombstone: Mapping[str, Any] | None = None  # the end that it had when it was removed


def recorded(lines: Iterable[Line]) -> dict[str, Recorded]:
    """By the session's id, from the lines of a log that was verified."""
    found: dict[str, Recorded] = {}
    for line in lines:
        fields = parse(line.raw) or {}
        event, session_id = fields.get("event"), str(fields.get("session_id"))
        if event == Event.SESSION_START:
            found.setdefault(session_id, Recorded())
        elif event == Event.SESSION_END:
            said = found.setdefault(session_id, Recorded())
            said.over, said.end = True, _end(fields)
        elif event == Event.RECORDING_PRUNED:
            found.setdefault(session_id, Recorded()).tombstone = _end(fields)
    return found


def _end(fields: Mapping[str, object]) -> Mapping[str, Any] | None:
    end = fields.get("recording")
    return end if isinstance(end, Mapping) else None
