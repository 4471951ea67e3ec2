"""The section `auth.totp`: one-time codes as a second factor."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from bastion.config.section import Section


def _issuer(value: str) -> str:
    if not value or len(value) > 64 or ":" in value or not value.isprintable():
        raise ValueError("a short name without a colon is right: it stands beside the code in the app")
    return value


class Totp(Section):
    """Codes of RFC 6238 after a key or a password; `bastion users enrol-totp` gives a user the secret."""

    ask: Literal["enrolled", "everyone", "by_rule"] = "enrolled"  # whom, at signing in; by_rule: where a rule wants it
    key: Path = Path("keys/totp_key")  # what the secrets in the database are encrypted with
    issuer: Annotated[str, AfterValidator(_issuer)] = "bastion"
