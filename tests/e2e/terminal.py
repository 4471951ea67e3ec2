"""A stock client on a real pseudo-terminal, and what a person would see and type on it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType


class Terminal:
    """The master side; `seen` is what the client has printed and nobody has expected yet, `transcript` all of it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.master = master
        self.seen = b""
        self.transcript = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, pattern: bytes, seconds: float = 15) -> re.Match[bytes]:
        """Read on until `pattern` is seen, and forget what was before its end."""
        deadline = time.monotonic() + seconds
        ended = False
        while (match := re.search(pattern, self.seen, re.S)) is None:
            left = deadline - time.monotonic()
            assert not ended, f"{pattern!r} was not seen before the end in {self.seen[-2000:]!r}"
            assert left > 0, f"{pattern!r} was not seen within {seconds} s in {self.seen[-2000:]!r}"
            ended = not self._read(left)
        self.seen = self.seen[match.end() :]
        return match

    def _read(self, seconds: float) -> bool:
        """Read once; False when the client has closed its side."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""  # EIO: the last one has closed the slave
        self.seen += data
        self.transcript += data
        return bool(data)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.killpg(self.process.pid, signal.SIGWINCH)

    def wait(self, seconds: float = 15) -> int:
        """The client's exit status; what it prints until then is read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the client still runs; seen: {self.seen[-2000:]!r}"
            self._read(0.05)
        while select.select([self.master], [], [], 0)[0] and self._read(0):
            pass
        return self.process.returncode


@contextlib.contextmanager
def on_terminal(
    command: list[str],
    columns: int = 80,
    rows: int = 24,
    term: str = "xterm-256color",
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Terminal]:
    """Run `command` with a pseudo-terminal of that size as its controlling terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - one system call; there is no argument for it
        env={**os.environ, **env, "TERM": term},
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
        os.close(master)
