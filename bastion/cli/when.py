"""A moment as people write it: 2h, yesterday, 2026-11-21, 2026-11-21T22:50:41Z."""

import re
from datetime import UTC, datetime, time, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
RIGHT = "2h (s, m, h, d, w), today, yesterday, or a date or time of ISO 8601 is right"


def when(text: str | None) -> datetime | None:
    """In UTC; None for None. What has no zone is the local time, as of this machine. typer.BadParameter."""
    if text is None:
        return None
    now = datetime.now(UTC)
    word = text.strip().lower()
    try:
        if ago := re.fullmatch(r"([0-9]{1,9})\s*([smhdw])(?:\s+ago)?", word):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if word == "now":
            return now
        if word in ("today", "yesterday"):
            day = now.astimezone().date() - timedelta(days=word == "yesterday")
            return datetime.combine(day, time()).astimezone(UTC)
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"found {text!r}; {RIGHT}") from None
