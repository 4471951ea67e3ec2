"""Compresses recordings that have ended, one at a time, while nobody else wants the processor."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bastion.errors import printable
from bastion.recording.files import compress

T = TypeVar("T")

NICE = 10
CLOSE_LIMIT = 10.0  # seconds that the rest may take at the end; what is left stays as it is
_logger = logging.getLogger(__name__)


class Packer:
    """One thread of a low priority."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "recording-packer", initializer=_give_way)
        self._waiting: set[Future[None]] = set()

    def pack(self, path: Path) -> None:
        """Compress it in a while. What fails is told the operator: the recording then stays as it is."""
        packing = self._pool.submit(_pack, path)
        self._waiting.add(packing)
        packing.add_done_callback(self._waiting.discard)

    async def run(self, work: Callable[[], T]) -> T:
        """Something else that takes long."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        if waiting := [asyncio.wrap_future(packing) for packing in list(self._waiting)]:
            await asyncio.wait(waiting, timeout=CLOSE_LIMIT)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it: then it is as important as the rest
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _pack(path: Path) -> None:
    try:
        compress(path)
    except OSError as error:
        _logger.warning("recording %s is not compressed: %s", printable(str(path)), error.strerror or error)
