"""The section `access`: who may enter what."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from bastion.config.lain import LainOwners
from bastion.config.section import Seconds, Section


class AccessRule(Section):
    """Allows whom it names the containers whose app matches one of `apps` (shell patterns).

    With `second_factor` nobody enters these containers without one, whatever else lets them in.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claim: str | None = Field(None, min_length=1)  # whose claim of that name is, or has in it, one of `values`
    values: tuple[str, ...] = ()
    apps: tuple[str, ...] = Field(min_length=1)
    clusters: tuple[str, ...] = Field(("*",), min_length=1)
    second_factor: bool = False

    @model_validator(mode="after")
    def _for_somebody(self) -> Self:
        if (self.claim is None) != (not self.values):
            raise ValueError("claim and values together, or neither, is right")
        if not self.users and not self.groups and self.claim is None:
            raise ValueError("users, groups or a claim is right: this rule allows nobody anything")
        return self


class Access(Section):
    """Who may enter what. Nothing here and no label: nobody."""

    owners_label: bool = True  # `bastion.owners: alice,@group`
    group_template: str | None = None  # "app-{app}": a member of this group owns the app
    lain: LainOwners | None = None
    rules: tuple[AccessRule, ...] = ()
    recheck_interval: Seconds | None = None  # ask anew whether who is inside may still be
    protected: tuple[str, ...] = ()  # container names or ids that are never entered

    @field_validator("group_template")
    @classmethod
    def _group_of_the_app(cls, value: str | None) -> str | None:
        if value is not None and "{app}" not in value:
            raise ValueError("a template with {app} in it is right, such as app-{app}; else one group owns every app")
        return value
