"""The section `auth.ldap`: users in a directory."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from bastion.config.section import InputFile, Seconds, Section


def _ldap_url(value: str) -> str:
    match = re.fullmatch(r"ldaps?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", value)
    if match is None or not 0 < int(match["port"] or 1) < 65536:
        raise ValueError("ldaps://host, ldaps://host:636 or ldap://host:389 is right")
    return value


def _user_template(value: str) -> str:
    if set(re.findall(r"\{(.*?)\}", value)) != {"user"}:
        raise ValueError("a template with {user} in it, and no other {name}, is right")
    return value


def _filter(value: str) -> str:
    if not (value.startswith("(") and value.endswith(")") and value.count("(") == value.count(")")):
        raise ValueError("an LDAP filter in parentheses is right, such as (uid={user})")
    return value


LdapUrl = Annotated[str, AfterValidator(_ldap_url)]
UserTemplate = Annotated[str, AfterValidator(_user_template)]


class Ldap(Section):
    """Users in a directory: search-then-bind (search_base) or a bind template (bind_template), not both."""

    servers: tuple[LdapUrl, ...] = Field(min_length=1)  # ldaps://host, ldap://host:port; tried in order
    start_tls: bool = False
    verify: bool = True
    ca_file: InputFile | None = None  # none: the system's
    allow_cleartext: bool = False  # ldap:// without StartTLS
    timeout: Seconds = 5  # for all that one server is asked for one login
    pool_size: int = Field(8, ge=1)  # threads of its own
    bind_template: UserTemplate | None = None  # "uid={user},ou=people,dc=example,dc=org"
    bind_dn: str | None = Field(None, min_length=1)
    bind_password: SecretStr | None = Field(None, min_length=1)
    search_base: str | None = Field(None, min_length=1)
    search_filter: Annotated[UserTemplate, AfterValidator(_filter)] = "(uid={user})"
    user_attribute: str = Field("uid", min_length=1)  # has to be the user name that was typed, to the letter
    key_attribute: str | None = Field(None, min_length=1)  # such as sshPublicKey: lines of authorized_keys
    member_of: str | None = Field("memberOf", min_length=1)  # read groups from the user's entry; wherever they are
    group_base: str | None = Field(None, min_length=1)  # or search for groups: only those below here count
    group_filter: Annotated[str, AfterValidator(_filter)] = "(member={dn})"
    group_name_attribute: str = Field("cn", min_length=1)
    nested_groups: bool = False  # also the groups that contain these groups

    @field_validator("group_filter")
    @classmethod
    def _group_of_somebody(cls, value: str) -> str:
        if set(re.findall(r"\{(.*?)\}", value)) not in ({"dn"}, {"user"}, {"dn", "user"}):
            raise ValueError("a filter with {dn} or {user} in it is right, such as (member={dn}) or (memberUid={user})")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.search_base is None) == (self.bind_template is None):
            raise ValueError("one of search_base and bind_template is right, not both and not none")
        if (self.bind_dn is None) != (self.bind_password is None):
            raise ValueError("bind_dn and bind_password together, or neither, is right")
        if self.bind_template is not None and self.bind_dn is not None:
            raise ValueError("bind_dn is for search_base; with bind_template the directory is asked as the user")
        if self.bind_template is not None and self.key_attribute is not None:
            raise ValueError("key_attribute with search_base is right: with a key nobody can bind as the user")
        cleartext = [server for server in self.servers if server.startswith("ldap://")]
        if self.start_tls and len(cleartext) < len(self.servers):
            raise ValueError("start_tls with ldap://host is right; ldaps:// is TLS from the start")
        if cleartext and not self.start_tls and not self.allow_cleartext:
            raise ValueError(
                f"{cleartext[0]} would show passwords to the network: ldaps://, or start_tls: true, is right "
                "(allow_cleartext: true if it is meant so)"
            )
        if self.nested_groups and (self.group_base is None or "{user}" in self.group_filter):
            raise ValueError("nested_groups with group_base and a group_filter of {dn} is right")
        return self
