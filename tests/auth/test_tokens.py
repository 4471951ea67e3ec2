import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth.tokens import MAX_CHARACTERS, MAX_OPAQUE, NO_PASSWORD, Token, token_in
from bastion.errors import Reason, Refusal


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


HEADER = part({"alg": "ES256", "kid": "k"})
JWT = f"{HEADER}.{part({'sub': 'alice'})}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("password", "token"),
    [
        (JWT, Token(JWT, True)),
        (f" {JWT}\r\n", Token(JWT, True)),  # as it was pasted
        (f"token:{JWT}", Token(JWT, True)),
        (JWT[:-20], Token(JWT[:-20], True)),
        (f"{HEADER}==.", Token(f"{HEADER}==.", True)),
        (f"{HEADER}.", Token(f"{HEADER}.", True)),
        (f"{part({'alg': 'none'})}..", Token(f"{part({'alg': 'none'})}..", True)),
        (f"{HEADER}.a.b.c.d", Token(f"{HEADER}.a.b.c.d", True)),
        ("eyJ" + "a" * NO_PASSWORD, Token("eyJ" + "a" * NO_PASSWORD, True)),  # cut short in the header
        ("token:s3cr3t", Token("s3cr3t", False)),
        ("token: s3cr3t\n", Token("s3cr3t", False)),
        ("token:a.b.c", Token("a.b.c", False)),
        ("token:token:a", Token("token:a", False)),
    ],
)
def test_tokens(password: str, token: Token) -> None:
    assert token_in(password) == token
    assert token.value not in repr(token)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "correct horse",
        "token",
        "Token:x",
        "atoken:x",
        "eyJones.smith.1",
        "...",
        "a.b.c",
        "eyJ",
        f"{part([1])}.a.b",
        f"{HEADER[:-4]}.a.b",  # no JSON
        f"x{JWT}",
        "é.a.b",
        "\ud800.a",
        "p" * 1000,
    ],
)
def test_passwords(password: str) -> None:
    assert token_in(password) is None


@pytest.mark.parametrize(
    "password",
    [
        "token:",
        "token: ",
        "token:a b",
        "token:a\0b",
        "token:\x1b[2J",
        "token:é",
        "token:\ud800",
        f"{JWT}\0",
        f"{HEADER}.\x1b[2J.x",
        "token:" + "a" * (MAX_OPAQUE + 1),
        JWT + "A" * MAX_CHARACTERS,
        JWT + "A" * 1_000_000,
    ],
    ids=lambda password: ascii(password[:30]),
)
def test_what_is_meant_as_a_token_and_can_be_none(password: str) -> None:
    with pytest.raises(Refusal) as caught:
        token_in(password)
    assert caught.value.reason is Reason.MALFORMED_TOKEN
    assert caught.value.log_text.isprintable()
    assert "\x1b" not in caught.value.log_text


@given(st.text(), st.text())
def test_any_text_is_one_or_the_other(before: str, after: str) -> None:
    for text in (before, f"{HEADER}.{after}", f"token:{after}", f"{before}.{after}"):
        with contextlib.suppress(Refusal):
            token = token_in(text)
            assert token is None or token.value.isascii()
            assert token is not None or not text.startswith(("token:", f"{HEADER}."))
