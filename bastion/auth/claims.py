"""From verified claims to an identity: who it is by an explicit rule, never by likeness."""

from collections.abc import Mapping

from bastion.auth.jwt import expiry
from bastion.auth.refusals import refused
from bastion.config import Oidc as Section
from bastion.errors import Reason, printable
from bastion.model import Identity


def identity(user: str, method: str, claims: Mapping[str, object], config: Section) -> Identity:
    """`user`, whose token has these claims. Raises Refusal ANOTHER_USER where it is somebody else's."""
    wanted = config.user_template.replace("{user}", user)
    found = claims.get(config.user_claim)
    if found != wanted:
        shown = printable(repr(found)[:200])
        raise refused(Reason.ANOTHER_USER, f"{user}: the token's {config.user_claim} is {shown}, not '{wanted}'")
    if config.user_claim == "email" and claims.get("email_verified") is not True:
        raise refused(Reason.ANOTHER_USER, f"{user}: the token's email is not verified (email_verified)")
    groups = claims.get(config.groups_claim) if config.groups_claim is not None else None
    listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    names = frozenset(name for name in listed if isinstance(name, str) and name)
    return Identity(user, method, names, dict(claims), expiry(claims))
