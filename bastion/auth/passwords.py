"""Passwords as the bytes that are hashed and sent: the same for what is typed here and there."""

import stringprep

from ldap3.core.exceptions import LDAPSASLPrepError
from ldap3.protocol.sasl.sasl import sasl_prep

MAX_BYTES = 1024


class EmptyPasswordError(ValueError):
    """To a directory, an empty password is a bind as nobody, which succeeds (RFC 4513 section 5.1.2)."""


def prepared(password: str) -> bytes:
    """`password` by SASLprep (RFC 4013), as RFC 4252 section 8 and RFC 4513 section 5.1.3 want it.

    Raises ValueError, and EmptyPasswordError also for what only looks like something, such as a soft hyphen. There are
    no control characters in it: some servers take NUL for the end.
    """
    if all(stringprep.in_table_b1(char) for char in password):
        raise EmptyPasswordError("the password is empty")
    try:
        secret: bytes = sasl_prep(password).encode()  # type: ignore[no-untyped-call]  # not in the stubs
    except (LDAPSASLPrepError, UnicodeEncodeError):
        raise ValueError("the password has characters that no password can have (RFC 4013)") from None
    if any(stringprep.in_table_a1(char) for char in password):
        raise ValueError("the password has characters that are newer than Unicode 3.2, such as emoji (RFC 4013)")
    if len(secret) > MAX_BYTES:
        raise ValueError(f"the password has more than {MAX_BYTES} bytes")
    return secret
