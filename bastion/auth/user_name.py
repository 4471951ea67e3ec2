"""Which user names there can be at all: looked at before any file or server is."""

import re

from bastion.errors import printable

MAX_CHARACTERS = 64
# Starts with a letter, digit or '_' (not '.', '-', '@'): it is also a word in paths, commands and `bastion.owners`.
_USER_NAME = re.compile(r"\w[\w.@+-]*")


def why_malformed(user: str) -> str | None:
    """None where `user` can be a user's name, else why not, safe to be logged."""
    if len(user) > MAX_CHARACTERS:
        return f"{printable(user[:16])}... has {len(user)} characters; at most {MAX_CHARACTERS} are right"
    if _USER_NAME.fullmatch(user) is None or not user.isprintable():
        return f"'{printable(user)}' is no user name; letters, digits and, after the first, also . _ - @ + are right"
    return None
