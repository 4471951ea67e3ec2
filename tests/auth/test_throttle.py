"""Networks and users that have to wait, by a clock that the test moves."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth import throttle as under_test
from bastion.auth.throttle import FAMILIAR, FREE, PATIENCE, Offence, Throttle
from bastion.config import Penalties
from bastion.errors import Reason, Refusal, Unavailable

HERE, THERE = "192.0.2.1", "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(Penalties(), clock)


async def guess(throttle: Throttle, user: str = "alice", source: str = HERE) -> None:
    with pytest.raises(Refusal):
        async with throttle.turn(user, source):
            raise Refusal(Reason.WRONG_CREDENTIALS, "no")


async def reason(throttle: Throttle, user: str, source: str) -> Reason | None:
    try:
        async with throttle.turn(user, source):
            return None
    except Refusal as refusal:
        return refusal.reason


# Networks.


def test_a_first_failed_connection_costs_nothing_that_a_person_notices(throttle: Throttle) -> None:
    assert throttle.offended(HERE, Offence.AUTHFAIL) == 0
    assert throttle.seconds_left(HERE) == 0


def test_each_failure_costs_twice_as_much_up_to_the_most(throttle: Throttle, clock: Clock) -> None:
    assert [throttle.offended(HERE, Offence.AUTHFAIL) for _ in range(5)] == [0, 15, 35, 75, 155]
    assert [throttle.offended(HERE, Offence.AUTHFAIL) for _ in range(40)][-1] == 600
    assert throttle.seconds_left(HERE) == 600
    assert throttle.seconds_left(THERE) == 0
    clock.now += 599.5
    assert throttle.seconds_left(HERE) == 0.5, "what is enforced is enforced to its end"
    clock.now += 0.5
    assert throttle.seconds_left(HERE) == 0


def test_after_its_end_a_repeated_failure_still_costs_more(throttle: Throttle, clock: Clock) -> None:
    for _ in range(2):
        throttle.offended(HERE, Offence.AUTHFAIL)
    clock.now += 16
    assert throttle.offended(HERE, Offence.AUTHFAIL) == 20
    clock.now += 20 + 601
    assert throttle.offended(HERE, Offence.AUTHFAIL) == 0, "forgotten after `max` quiet seconds"


def test_checks_of_a_load_balancer_never_add_up_but_a_flood_does(throttle: Throttle, clock: Clock) -> None:
    for _ in range(1000):
        assert throttle.offended(HERE, Offence.NOAUTH) == 0
        clock.now += 2
    assert max(throttle.offended(HERE, Offence.NOAUTH) for _ in range(15)) == 15


def test_waiting_out_the_grace_time_is_enforced_at_once(throttle: Throttle) -> None:
    assert throttle.offended(HERE, Offence.GRACE_EXCEEDED) == 20


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_who_answers_for_whom(throttle: Throttle, one: str, other: str, same: bool) -> None:
    for _ in range(2):
        throttle.offended(one, Offence.AUTHFAIL)
    assert (throttle.seconds_left(other) > 0) is same


def test_exempt_networks(clock: Clock) -> None:
    throttle = Throttle(Penalties.model_validate({"exempt": ["192.0.2.0/24", "2001:db8::/32"]}), clock)
    for source in (HERE, "2001:db8::1", "::ffff:192.0.2.9", THERE):
        for _ in range(10):
            throttle.offended(source, Offence.AUTHFAIL)
    assert [bool(throttle.seconds_left(source)) for source in (HERE, "2001:db8::1", THERE)] == [False, False, True]


def test_the_memory_is_bounded(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "CAPACITY", 100)  # 65536 would take the test a second for nothing
    for number in range(1000):
        throttle.offended(f"10.0.{number // 250}.{number % 250}", Offence.GRACE_EXCEEDED)
        throttle.failed(f"user{number}")
        throttle.passed(f"user{number}", HERE)
    for kept in (throttle._penalties, throttle._guesses, throttle._familiar):
        assert len(kept._items) == 100
    assert throttle.seconds_left("10.0.3.249") > 0, "what is new is kept"


@given(st.lists(st.tuples(st.sampled_from(list(Offence)), st.integers(0, 2000)), max_size=60))
def test_no_penalty_is_longer_than_the_most_and_all_end(story: list[tuple[Offence, int]]) -> None:
    clock = Clock()
    throttle = Throttle(Penalties(), clock)
    for offence, pause in story:
        throttle.offended(HERE, offence)
        assert 0 <= throttle.seconds_left(HERE) <= 600
        clock.now += pause
    clock.now += 600
    assert throttle.seconds_left(HERE) == 0


# Users.


async def test_a_person_who_mistypes_does_not_wait(throttle: Throttle) -> None:
    async with asyncio.timeout(1):
        for _ in range(FREE):
            await guess(throttle)
        assert await reason(throttle, "alice", HERE) is None


async def test_many_wrong_passwords_from_many_networks_wait_for_each_other(throttle: Throttle, clock: Clock) -> None:
    looked_at = 0
    for number in range(3600 * 10):  # ten a second for an hour, each from elsewhere
        source = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        guesses = throttle._guesses.get("alice")
        if guesses is None or guesses.next_turn <= clock.now:
            await guess(throttle, source=source)
            looked_at += 1
        clock.now += 0.1
    assert FREE < looked_at < 25


async def test_what_would_wait_too_long_is_refused_unseen_whoever_it_is(throttle: Throttle, clock: Clock) -> None:
    for user in ("alice", "nobody-of-this-name"):
        for _ in range(FREE + 4):
            throttle.failed(user)
        assert await reason(throttle, user, HERE) is Reason.THROTTLED
    clock.now += 2**3
    assert await reason(throttle, "alice", HERE) is None


async def test_who_signed_in_from_there_lately_is_not_held_up_by_who_guesses(throttle: Throttle, clock: Clock) -> None:
    throttle.passed("alice", HERE)
    for _ in range(30):
        throttle.failed("alice")
    assert await reason(throttle, "alice", HERE) is None
    assert await reason(throttle, "alice", THERE) is Reason.THROTTLED
    clock.now += FAMILIAR
    for _ in range(30):
        throttle.failed("alice")
    assert await reason(throttle, "alice", HERE) is Reason.THROTTLED


async def test_those_that_are_looked_at_now_count_as_if_they_had_failed(throttle: Throttle) -> None:
    release = asyncio.Event()

    async def slow() -> None:
        async with throttle.turn("alice", HERE):
            await release.wait()

    waiting = [asyncio.create_task(slow()) for _ in range(20)]
    done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
    refused = [task for task in done if task.exception() is not None]
    assert len(refused) >= 20 - FREE - PATIENCE - 1, "a hundred guesses at once are not a hundred free guesses"
    release.set()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    guesses = throttle._guesses.get("alice")
    assert guesses is not None
    assert guesses.pending == 0


async def test_an_outage_is_no_wrong_password(throttle: Throttle) -> None:
    for _ in range(30):
        with pytest.raises(Unavailable):
            async with throttle.turn("alice", HERE):
                raise Unavailable(Reason.AUTH_UNAVAILABLE, "try again")
    assert await reason(throttle, "alice", HERE) is None
