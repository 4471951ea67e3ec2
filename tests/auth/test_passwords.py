import pytest
from asyncssh.saslprep import SASLPrepError, saslprep
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth.passwords import MAX_BYTES, EmptyPasswordError, prepared


@pytest.mark.parametrize("password", ["", "\u00ad", "\u200b\ufeff"])
def test_what_only_looks_like_something_is_empty(password: str) -> None:
    with pytest.raises(EmptyPasswordError):
        prepared(password)


@pytest.mark.parametrize("password", ["a\0", "\0", "a\n", "a\udce4", "\ue000", "x😀", "a" * (MAX_BYTES + 1), "\u05d0a"])
def test_what_is_no_password(password: str) -> None:
    with pytest.raises(ValueError, match="the password has"):
        prepared(password)


def test_the_same_however_it_is_typed() -> None:
    assert prepared("café") == prepared("cafe\u0301") == "café".encode()
    assert prepared(" correct horse ") == b" correct horse "
    assert prepared("a\u00a0b") == b"a b"


@given(st.text(max_size=20))
def test_what_the_ssh_side_makes_of_it_is_the_same(password: str) -> None:
    """asyncssh prepares what a client sends; `bastion users` has to have hashed the same."""
    try:
        sent = saslprep(password)
    except SASLPrepError:
        sent = ""
    try:
        assert prepared(password) == prepared(sent) == sent.encode()
    except ValueError:
        assert sent == "" or not sent.strip("\u00ad")
