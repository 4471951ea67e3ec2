"""What is read from the database: only what is an event counts."""

import contextlib
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from bastion import neighbours
from bastion.auth.throttle import FREE, Throttle
from bastion.config import Penalties
from bastion.errors import Refusal

HERE = "192.0.2.1"


@pytest.fixture
def throttle() -> Throttle:
    return Throttle(Penalties())


def line(seconds_ago: float = 0, **fields: object) -> str:
    time = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    return json.dumps({"time": time, "bastion_id": "other", "source_ip": HERE, "user": "alice", **fields})


def tell(throttle: Throttle, *lines: str, but_of: str | None = "me") -> None:
    for one in lines:
        neighbours._learn(throttle, one, but_of=but_of)


def closed(seconds_ago: float = 0, offence: str | None = "authfail", **fields: object) -> str:
    return line(seconds_ago, event="connection.close", offence=offence, **fields)


def test_offences_count_from_when_they_happened(throttle: Throttle) -> None:
    tell(throttle, *(closed(10) for _ in range(3)))  # two are the least, give or take a microsecond
    assert 20 < throttle.seconds_left(HERE) <= 5 + 10 + 20 - 10


def test_what_this_bastion_saw_itself_does_not_count_twice(throttle: Throttle) -> None:
    tell(throttle, *(closed(bastion_id="me") for _ in range(5)))
    assert throttle.seconds_left(HERE) == 0
    tell(throttle, *(closed(bastion_id="me") for _ in range(5)), but_of=None)
    assert throttle.seconds_left(HERE) > 0, "but after its start what it saw before does"


def test_connections_that_ended_well_are_no_offences(throttle: Throttle) -> None:
    tell(throttle, *(closed(offence=None) for _ in range(50)))
    assert throttle.seconds_left(HERE) == 0


@pytest.mark.parametrize(
    ("method", "reason", "counts"),
    [
        ("password", "wrong_credentials", True),
        ("password", "unknown_user", True),
        ("publickey", "unknown_user", False),
        ("password", "auth_unavailable", False),
        ("password", "throttled", False),
    ],
)
async def test_which_failures_are_guesses(throttle: Throttle, method: str, reason: str, counts: bool) -> None:
    failures = [line(event="user.login_failed", method=method, reason=reason) for _ in range(FREE + 5)]
    tell(throttle, *failures)
    with pytest.raises(Refusal, match="wrong passwords") if counts else contextlib.nullcontext():
        async with throttle.turn("alice", HERE):
            pass
    tell(throttle, line(event="user.login"))
    async with throttle.turn("alice", HERE):
        pass  # known here: others guess in vain


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "\x1b]0;x\x07", closed(offence="rm -rf"), closed(source_ip="nowhere"), closed(time="later")],
)
def test_what_is_no_event_is_left_out(throttle: Throttle, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tell(throttle, text)
    assert throttle.seconds_left(HERE) == 0
    assert "is none" in caplog.text
    assert caplog.records[0].getMessage().isprintable()
