"""A place in a recording, as people write and read it: 1:30.5 is 90.5 seconds after the start."""

import math
import re

_WRITTEN = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)


def parse_position(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`. Raises ValueError."""
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise ValueError(f"{text!r} is no place in a recording; 90, 1:30 and 1:02:03.5 are")
    hours, minutes, seconds = written.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def format_position(seconds: float) -> str:
    """`1:30.50`: rounded up, so that what is said to be there has been shown when it is played up to there."""
    minutes, hundredths = divmod(math.ceil(max(seconds, 0.0) * 100 - 1e-6), 6000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{hundredths // 100:02}.{hundredths % 100:02}"
