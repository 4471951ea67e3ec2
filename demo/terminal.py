"""What the user reads: one line for each step, with its time; a problem is a sentence."""

import contextlib
import sys
import time
from collections.abc import Iterator


class Problem(Exception):
    """The demo can not go on; the text says what is wrong and what would help."""


def say(text: str = "") -> None:
    # The terminal may be gone (SIGHUP) while the demo is still cleaning up.
    with contextlib.suppress(OSError):
        print(text, flush=True)


def complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and then how long it took."""
    with contextlib.suppress(OSError):
        print(f"{text} ... ", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        say()
        raise
    say(f"{time.monotonic() - began:.1f} s")
