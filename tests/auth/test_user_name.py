import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth.user_name import why_malformed


@pytest.mark.parametrize(
    "user", ["alice", "a", "_x", "0day", "alice.b-c_d", "alice@example.org", "a+b", "josé", "a" * 64]
)
def test_names(user: str) -> None:
    assert why_malformed(user) is None


HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "-l",
    "@group",
    "+",
    "++",
    " ",
    "a b",
    "a,b",
    "a/b",
    "../etc",
    "a\\b",
    "a\0",
    "a\n",
    "a" * 65,
]
HOSTILE += [
    "a\x1b[2J",
    "\x07",
    "*",
    "*)(uid=*",
    "a=b",
    "a;b",
    "a'b",
    'a"b',
    "a`b`",
    "$(id)",
    "a\u200b",
    "a\u202eb",
    "a\udce4",
]


@pytest.mark.parametrize("user", [*HOSTILE, "a" * 10_000, "\x1b" * 10_000], ids=lambda user: ascii(user[:20]))
def test_what_is_none_and_how_it_is_logged(user: str) -> None:
    problem = why_malformed(user)
    assert problem is not None
    assert problem.isprintable()
    assert len(problem) < 250


@given(st.text())
def test_what_is_one_holds_nothing_that_anything_obeys(user: str) -> None:
    if why_malformed(user) is None:
        assert user.isprintable()
        assert not set(user) & set(" ,/\\:;'\"`$&|<>()[]{}*?!#%=~^")
        assert user[0] not in ".-@+"
