"""Which of the client's environment variables reach the program (RFC 4254 section 6.4; sshd's AcceptEnv)."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

MAX_VARIABLES = 64  # a channel
MAX_BYTES = 32 * 1024  # names and values of a channel together

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def accept(name: bytes, value: bytes, patterns: Sequence[str]) -> tuple[str, str] | None:
    """Name and value as text where one of `patterns` fits the name; None where the variable is not passed on."""
    try:
        name_text, value_text = name.decode("ascii"), value.decode()
    except UnicodeDecodeError:
        return None
    if not _NAME.fullmatch(name_text) or "\0" in value_text or name_text.startswith("BASTION_"):
        return None  # BASTION_...: how the processes of a session are found again
    return (name_text, value_text) if any(fnmatchcase(name_text, pattern) for pattern in patterns) else None
