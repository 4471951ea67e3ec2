"""The sections `auth.lain` and `access.lain`: LAIN's single sign-on, and who owns a LAIN app."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from bastion.config.remote import Remote


class LainSso(Remote):
    """People who have a token of LAIN's single sign-on."""

    sso: str  # the URL that /api/me is below

    @model_validator(mode="after")
    def _is_url(self) -> Self:
        self.check_url("sso", self.sso)
        return self


class LainOwners(Remote):
    """Who owns a LAIN app: whoever has a role there, or is in the group that is named after it."""

    console: str | None = None  # the URL that /api/v1/repos/ is below
    domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None  # of the group lainapp-{domain}-{app}

    @model_validator(mode="after")
    def _some_source(self) -> Self:
        if self.console is None and self.domain is None:
            raise ValueError("console or domain, or both, is right: nobody owns anything by this")
        if self.console is not None:
            self.check_url("console", self.console)
        return self
