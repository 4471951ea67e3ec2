import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.recording.position import format_position, parse_position


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90.5", 90.5), ("1:30", 90), ("0:01:30.25", 90.25), ("100:00:00", 360_000)],
)
def test_what_people_write(text: str, seconds: float) -> None:
    assert parse_position(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:", ":1", "1:2:3:4", "1e9", "nan", "inf", "1.2:3", " 1", "\N{ARABIC-INDIC DIGIT ONE}", "1\n"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="no place in a recording"):
        parse_position(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.00"), (90.25, "1:30.25"), (59.991, "1:00.00"), (3661, "1:01:01.00")]
)
def test_how_it_is_shown(seconds: float, text: str) -> None:
    assert format_position(seconds) == text


@given(st.floats(0, 1e8))
def test_what_is_shown_is_where_it_has_just_been_seen(seconds: float) -> None:
    assert seconds - 1e-5 <= parse_position(format_position(seconds)) < seconds + 0.011
