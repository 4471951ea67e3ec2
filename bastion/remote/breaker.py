"""A circuit breaker: a server that fails is left alone for a while, so that nobody waits for it in vain."""

import contextlib
import threading
import time
from collections.abc import Iterator

FAILURES = 3  # in a row
REST_SECONDS = 5.0


class RestingError(Exception):
    """The server failed lately and is not asked now."""


class Breaker:
    """For one server; any thread may use it.

    After FAILURES in a row every attempt is refused for REST_SECONDS; then one is let through, and decides.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._rests_until = 0.0
        self._probing = False

    @property
    def failed_lately(self) -> bool:
        """Another server is the better one to ask, where there is one."""
        return self._failures > 0 and time.monotonic() < self._rests_until

    @contextlib.contextmanager
    def attempt(self, failure: type[Exception]) -> Iterator[None]:
        """Ask the server inside. Raises RestingError; `failure` counts against it, another exception is an answer."""
        self._begin()
        try:
            yield
        except failure:
            self._end(failed=True)
            raise
        except Exception:
            self._end(failed=False)
            raise
        except BaseException:  # cancelled: nothing is known
            with self._lock:
                self._probing = False
            raise
        self._end(failed=False)

    def _begin(self) -> None:
        with self._lock:
            if self._failures < FAILURES:
                return
            left = self._rests_until - time.monotonic()
            if self._probing or left > 0:
                raise RestingError(f"not asked: it has failed {self._failures} times in a row")
            self._probing = True

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            self._probing = False
            self._failures = self._failures + 1 if failed else 0
            self._rests_until = time.monotonic() + REST_SECONDS
