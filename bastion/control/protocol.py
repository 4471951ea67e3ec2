"""One request a connection, one line of JSON each way."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LINE_LIMIT = 64 << 10  # bytes of a request or an answer
NAME = "control.sock"


def encode(message: dict[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """What a line says. Raises ValueError where it is no JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"an object is right, not {type(message).__name__}")
    return message


@contextlib.contextmanager
def socket_in(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A unix socket, and a name for its place that holds until the block is left.

    By the folder's descriptor, since the path of a socket has at most 107 bytes. OSError.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            yield made, f"/proc/self/fd/{descriptor}/{NAME}"
        except BaseException:
            made.close()
            raise
    finally:
        os.close(descriptor)
