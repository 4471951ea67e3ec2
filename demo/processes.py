"""The processes that the demo started, found again after a crash by a variable in their environment."""

import contextlib
import hashlib
import os
import signal
import time
from pathlib import Path

VARIABLE = "BASTION_DEMO"


def mark_of(run: Path) -> str:
    """The mark of the demo whose folder is `run`: always the same, short, good as the name of a file or image."""
    return f"bastion-demo-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def environment(mark: str) -> dict[str, str]:
    """The environment for a process that `find(mark)` is to find; its children inherit it."""
    return {**os.environ, VARIABLE: mark}


def find(mark: str, *, name: str | None = None) -> list[int]:
    """Pids of the processes that carry `mark`, or run in a cgroup of that name; `name` is the program's (comm).

    Other users' processes are seen by root only.
    """
    pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [pid for pid in pids if _carries(pid, mark, name)]


def end(mark: str, signum: signal.Signals, seconds: float, *, name: str | None = None) -> bool:
    """Signal what `find` finds, until nothing is left or `seconds` are over; is nothing left?"""
    deadline = time.monotonic() + seconds
    signalled: set[int] = set()
    while pids := find(mark, name=name):
        for pid in set(pids) - signalled:  # once: a program may take a second SIGTERM for impatience
            _signal(pid, mark, name, signum)
            signalled.add(pid)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _carries(pid: int, mark: str, name: str | None) -> bool:
    folder = Path("/proc", str(pid))
    try:
        marked = f"{VARIABLE}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        contained = f"/{mark}/" in (folder / "cgroup").read_text()
        comm, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:  # it ended, or is another user's
        return False
    return (marked or contained) and not rest.startswith(" Z") and name in (None, comm)


def _signal(pid: int, mark: str, name: str | None, signum: signal.Signals) -> None:
    """By pidfd, looked at again once it is held: so that it is never a stranger with a reused pid."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _carries(pid, mark, name):
                signal.pidfd_send_signal(handle, signum)
        finally:
            os.close(handle)
