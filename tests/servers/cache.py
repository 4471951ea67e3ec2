"""What takes long to make, and is the same each time, is made once a machine, by the one who needs it first."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

CACHE = Path(os.environ.get("BASTION_TEST_CACHE", Path(__file__).parents[2] / ".cache"))


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of the cache; where there is none, `make` writes it, while other processes wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    made, unfinished = CACHE / name, CACHE / f"{name}.unfinished"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(unfinished)
            unfinished.rename(made)
    return made
