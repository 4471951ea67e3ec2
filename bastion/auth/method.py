"""A way to sign in: one file in this folder, a class made of this one, listed in `Authenticator`."""

from collections.abc import Sequence

from bastion.auth.conversation import Conversation
from bastion.auth.tokens import Token
from bastion.model import Identity
from bastion.remote.probe import Probe


class Method:
    """What there is to ask a method. It overrides what it knows; the rest says "not one of mine".

    `password`, `token`, `public_key` and `conversation` return None where the user is not one of this method's, so that
    the next one is asked. They raise Refusal for their own users, and where they have spent as much time on an unknown
    user as on a wrong password (UNKNOWN_USER; the next one is asked); Unavailable where they can not tell.
    """

    converses = False  # does `conversation` ever return one? Keyboard-interactive is offered then
    makes: frozenset[str] = frozenset()  # what Identity.method says of those that `lookup` can tell about later
    knows_users = False  # does `lookup` know everybody who may sign in by another's word, such as a CA's?

    async def password(self, user: str, password: bytes, source_ip: str) -> Identity | None:
        return None

    async def token(self, user: str, token: Token, source_ip: str) -> Identity | None:
        """None also where such a token can not be this method's. Which users there are can not be told from it."""
        return None

    async def public_key(self, user: str, key_type: str, key_blob: bytes, source_ip: str) -> Identity | None:
        return None

    async def lookup(self, user: str) -> Identity | None:
        """Who that is now, without any credential. Raises Refusal where they are kept out, and Unavailable."""
        return None

    async def conversation(self, user: str, source_ip: str) -> Conversation | None:
        """What to ask by keyboard-interactive: of a user who is unknown the same as of one who is not."""
        return None

    async def vet(self, identity: Identity) -> None:
        """Raise Refusal where this method keeps out somebody whom another one would let in; Unavailable as above."""

    def probes(self) -> Sequence[Probe]:
        """A try for each server that this method asks."""
        return ()

    async def decoy(self) -> None:
        """Take the time of a wrong password. Raises Unavailable."""

    async def close(self) -> None:
        """Return when nothing of it runs any more."""
