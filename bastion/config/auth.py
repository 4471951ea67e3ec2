"""The section `auth`: the ways to sign in."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

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
    totp: Totp | None = None

    @model_validator(mode="after")
    def _some_way_in(self) -> Self:
        if self.local is None and self.ldap is None and self.oidc is None:
            raise ValueError("at least one way to sign in is right: local, ldap or oidc")
        return self
