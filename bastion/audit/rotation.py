"""The log's file is moved aside when it is large or its time is over, as logrotate would: the sink makes it again."""

import asyncio
import contextlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from bastion.config import Audit

LOOK = 5.0  # seconds between two looks
_PERIODS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V"}  # in UTC
_logger = logging.getLogger(__name__)


async def rotate(config: Audit) -> None:
    """Look again and again, until cancelled; at once returns where nothing is to be rotated."""
    if config.file is None or (config.rotate_bytes is None and config.rotate_every is None):
        return
    while True:
        try:
            await asyncio.to_thread(move_if_due, config.file, config, datetime.now(UTC))
        except OSError as error:
            _logger.error("%s can not be rotated: %s", config.file, error.strerror)
        await asyncio.sleep(LOOK)


def move_if_due(path: Path, config: Audit, now: datetime) -> None:
    """Rename FILE to FILE-20261125T213700Z where it is due: nothing is copied, nothing deleted. OSError."""
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        large = config.rotate_bytes is not None and size >= config.rotate_bytes
        if large or (size and config.rotate_every is not None and _is_over(path, config.rotate_every, now)):
            moved = path.with_name(f"{path.name}-{now:%Y%m%dT%H%M%SZ}")
            if not moved.exists():  # else in a second
                path.rename(moved)


def _is_over(path: Path, period: str, now: datetime) -> bool:
    """Is the first event in the file of another hour, day or week than now?"""
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut short
                began = datetime.fromisoformat(json.loads(line)["time"])
                return began.strftime(_PERIODS[period]) != now.strftime(_PERIODS[period])
    return False
