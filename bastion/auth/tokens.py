"""Is it a token or a password? Decided by its shape, before anything is sent: neither may reach the other's server."""

import base64
import re
from dataclasses import dataclass, field

import orjson

from bastion.auth.refusals import refused
from bastion.errors import Reason

PREFIX = "token:"
MAX_CHARACTERS = 64 * 1024  # of a JWT, which is read here
MAX_OPAQUE = 4096  # characters of another, which has to fit into a header: servers hang up where it does not
NO_PASSWORD = 512  # characters of base64url: nobody's password, but perhaps a piece of a token
OPENSSH_READS = 1023  # characters of an answer; its client drops the rest without a word
_VISIBLE = re.compile(r"[\x21-\x7e]+")  # what a token is made of: RFC 6749 appendix A.12
_BASE64 = re.compile(r"[A-Za-z0-9_+/-]+={0,2}")  # a JWT has the url kind without '='; some would mend that


@dataclass(frozen=True, slots=True)
class Token:
    """`value` is visible ASCII. `jwt`: it has the shape of a JWT (RFC 7519), or a piece of one; else it is opaque."""

    value: str = field(repr=False)  # a secret
    jwt: bool


def token_in(password: str) -> Token | None:
    """The token that was given as the password: a JWT, or anything after `token:`; None for a password.

    Raises Refusal MALFORMED_TOKEN where it is meant as a token, and can be none.
    """
    text = password.strip(" \t\r\n")
    value = text.removeprefix(PREFIX).strip(" \t\r\n")
    jwt = _is_jwt(value)
    if not jwt and not text.startswith(PREFIX):
        return None
    most = MAX_CHARACTERS if jwt else MAX_OPAQUE
    if len(value) > most:
        raise refused(Reason.MALFORMED_TOKEN, f"the token has more than {most} characters")
    if _VISIBLE.fullmatch(value) is None:
        raise refused(Reason.MALFORMED_TOKEN, "the token is empty, or has blanks or control characters in it")
    return Token(value, jwt)


def _is_jwt(value: str) -> bool:
    """True as well of what has been tampered with, or cut short: that must not be sent to a directory either."""
    header, dot, _ = value.partition(".")
    if len(header) > MAX_CHARACTERS or _BASE64.fullmatch(header) is None:
        return False
    if not dot:
        return len(header) >= NO_PASSWORD and header.startswith("eyJ")
    try:
        return isinstance(orjson.loads(base64.b64decode(header + "=" * (-len(header) % 4), altchars=b"-_")), dict)
    except ValueError:
        return False
