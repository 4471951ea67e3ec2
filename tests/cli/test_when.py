from datetime import UTC, datetime, timedelta

import pytest
import typer

from bastion.cli.when import when


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90), ("5m", 300), ("2h", 7200), ("2 h ago", 7200), ("3d", 259_200), ("1w", 604_800), ("now", 0)],
)
def test_so_long_ago(text: str, ago: int) -> None:
    found = when(text)
    assert found is not None
    assert abs((datetime.now(UTC) - found).total_seconds() - ago) < 60
    assert found.tzinfo is UTC


def test_days_begin_at_midnight_here() -> None:
    today, yesterday = when("today"), when("Yesterday")
    assert today is not None
    assert yesterday is not None
    assert (today.astimezone().hour, today.astimezone().minute) == (0, 0)
    assert today.astimezone().date() == datetime.now().astimezone().date()
    assert yesterday.astimezone().date() == today.astimezone().date() - timedelta(days=1)


def test_iso_8601() -> None:
    assert when("2026-11-21T22:50:41Z") == datetime(2026, 11, 21, 22, 50, 41, tzinfo=UTC)
    assert when("2026-11-21T22:50+02:00") == datetime(2026, 11, 21, 20, 50, tzinfo=UTC)
    assert when("2026-11-21") == datetime(2026, 11, 21).astimezone(UTC)
    assert when("2026-11-21 22:50") == datetime(2026, 11, 21, 22, 50).astimezone(UTC)
    assert when(None) is None


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2x", "-2h", "2026-13-01", "9999999w", "999999999w", "1e3s", "\x1b[2J"]
)
def test_what_is_no_time_says_what_is(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"2h .* is right") as caught:
        when(text)
    assert caught.value.message.isprintable()
