"""The section `auth.certificates`: OpenSSH user certificates."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from bastion.config.section import Section


def _public_key(value: str) -> str:
    kind, _, rest = value.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    if not kind or not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise ValueError("a public key is right, such as ssh-ed25519 AAAA...")
    return value.strip()


class Certificates(Section):
    """Whose signature makes a certificate of a user one that opens the door."""

    ca_key: Path | None = Path("keys/user_ca_ed25519_key")  # the bastion's own; FILE.pub is all that signing in needs
    authorities: tuple[Annotated[str, AfterValidator(_public_key)], ...] = ()  # public keys of others

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.ca_key is None and not self.authorities:
            raise ValueError("ca_key or authorities, or both, is right: else no certificate opens the door")
        return self
