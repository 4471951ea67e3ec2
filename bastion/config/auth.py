"""The section `auth`: the ways to sign in."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from bastion.config.certificates import Certificates
from bastion.config.lain import LainSso
from bastion.config.ldap import Ldap
from bastion.config.oidc import Oidc
from bastion.config.section import Section
from bastion.config.totp import Totp


class LocalUsers(Section):
    """Users in a file that `bastion users` writes."""

    file: Path = Path("users.yaml")


class Auth(Section):
    """Ways to sign in, asked in this order; at least one."""

    local: LocalUsers | None = None
    ldap: Ldap | None = None
    oidc: Oidc | None = None
    lain: LainSso | None = None
    certificates: Certificates | None = None
    revoked_keys: Path | None = None  # a KRL of ssh-keygen -k, or a list of public keys
    totp: Totp | None = None
    disconnect_expired: bool = False  # when a certificate or token ends, so do the sessions that it opened

    @model_validator(mode="after")
    def _some_way_in(self) -> Self:
        if not any((self.local, self.ldap, self.oidc, self.lain, self.certificates)):
            raise ValueError("at least one way to sign in is right: local, ldap, oidc, lain or certificates")
        if self.lain is not None and self.oidc is not None and self.oidc.opaque_tokens is not None:
            raise ValueError("one of lain and oidc.opaque_tokens is right: an opaque token does not say whose it is")
        return self
