import asyncio
import threading

import pytest

from bastion.remote import breaker
from bastion.remote.breaker import FAILURES, Breaker, RestingError


class NoAnswerError(Exception):
    pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(breaker.time, "monotonic", lambda: now[0])
    return now


def fail(what: Breaker, error: type[BaseException] = NoAnswerError) -> None:
    with pytest.raises(error), what.attempt(NoAnswerError):
        raise error


def answer(what: Breaker) -> None:
    with what.attempt(NoAnswerError):
        pass


def test_failures_in_a_row_open_it_and_one_try_decides(clock: list[float]) -> None:
    what = Breaker()
    for _ in range(FAILURES - 1):
        fail(what)
    answer(what)  # not in a row
    for _ in range(FAILURES):
        fail(what)
    fail(what, RestingError)
    clock[0] += breaker.REST_SECONDS + 0.1
    fail(what)  # the one try
    fail(what, RestingError)
    clock[0] += breaker.REST_SECONDS + 0.1
    answer(what)
    answer(what)


def test_only_one_asks_after_the_rest(clock: list[float]) -> None:
    what = Breaker()
    for _ in range(FAILURES):
        fail(what)
    clock[0] += breaker.REST_SECONDS + 0.1
    with what.attempt(NoAnswerError):
        fail(what, RestingError)
        clock[0] += 1000  # it takes its time
        fail(what, RestingError)
    answer(what)


def test_another_exception_is_an_answer_and_a_cancellation_is_nothing(clock: list[float]) -> None:
    what = Breaker()
    for _ in range(3 * FAILURES):
        fail(what, ValueError)
    for _ in range(FAILURES):
        fail(what)
    clock[0] += breaker.REST_SECONDS + 0.1
    fail(what, asyncio.CancelledError)  # the client left: the next one may try
    fail(what)
    fail(what, RestingError)


def test_threads_count_together() -> None:
    what = Breaker()
    threads = [threading.Thread(target=fail, args=(what,)) for _ in range(FAILURES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    fail(what, RestingError)
