"""The sections of the configuration: what can be set, what it is when it is not, and what does not fit together."""

import re
import socket
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Network = IPv4Network | IPv6Network


def host_and_port(address: str) -> tuple[str, int]:
    """`host:port` or `[::1]:port` taken apart; raises ValueError with what would be right."""
    match = re.fullmatch(
        r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", address
    )
    if match is None or int(match["port"]) > 65535:
        raise ValueError("a host and a port is right, such as 0.0.0.0:2222 or [::1]:2222")
    return match["ipv6"] or match["host"], int(match["port"])


def _listen_address(value: str) -> str:
    host_and_port(value)
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("a name of letters, digits, '_', '.' and '-' is right")
    return value


def _engine_url(value: str) -> str:
    if not re.fullmatch(r"unix:///.+|tcp://[^/@\s]+:[0-9]{1,5}", value):
        raise ValueError("unix:///var/run/docker.sock or tcp://host:2376 is right")
    return value


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


def _readable(value: Path, info: ValidationInfo) -> Path:
    """A file that has to be there; looked at by the loader only, which knows the folder."""
    if info.context is None:
        return value
    path: Path = info.context["folder"] / value
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"a file that can be read is right ({path}: {error.strerror})") from None


def _database_url(value: SecretStr) -> SecretStr:
    """Says nothing of the URL but its driver: the rest may be a password."""
    right = "sqlite+aiosqlite:///file or postgresql+psycopg://user:password@host/database is right"
    try:
        driver = make_url(value.get_secret_value()).drivername
    except (ArgumentError, ValueError):
        raise ValueError(f"{right}; this is no database URL") from None
    if driver not in ("sqlite+aiosqlite", "postgresql+psycopg"):
        raise ValueError(f"{right}; the driver here is {driver!r}")
    return value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"each only once is right; {value!r} is there twice")
    return values


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
Name = Annotated[str, AfterValidator(_name)]
EngineUrl = Annotated[str, AfterValidator(_engine_url)]
LdapUrl = Annotated[str, AfterValidator(_ldap_url)]
UserTemplate = Annotated[str, AfterValidator(_user_template)]
InputFile = Annotated[Path, AfterValidator(_readable)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_a_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes `true` for 1
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("true and false do not fit here; put quotes around it if it is meant as text")
        return value

    def resolved(self, folder: Path) -> Self:
        """A copy whose relative paths, also those that are defaults, start at `folder`."""
        return self.model_copy(
            update={name: _resolved(getattr(self, name), folder) for name in type(self).model_fields}
        )


def _resolved(value: object, folder: Path) -> object:
    if isinstance(value, Section):
        return value.resolved(folder)
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, tuple):
        return tuple(_resolved(item, folder) for item in value)
    return value


class MaxStartups(Section):
    """OpenSSH's MaxStartups start:rate:full, for connections that have not authenticated."""

    start: int = Field(10, ge=1)
    rate: int = Field(30, ge=0, le=100)  # percent
    full: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _start_before_full(self) -> Self:
        if self.start > self.full:
            raise ValueError(f"a start that is at most full is right; start is {self.start}, full is {self.full}")
        return self


class Ssh(Section):
    """The SSH server, in OpenSSH's terms."""

    listen: Annotated[tuple[ListenAddress, ...], Field(min_length=1), AfterValidator(_unique)] = ("0.0.0.0:2222",)
    host_keys: tuple[Path, ...] = Field(
        (Path("keys/ssh_host_ed25519_key"), Path("keys/ssh_host_rsa_key")), min_length=1
    )
    max_auth_tries: int = Field(6, ge=1)
    login_grace_time: Seconds = 60
    max_startups: MaxStartups = MaxStartups()
    max_sessions: int = Field(10, ge=1)
    client_alive_interval: Seconds = 30
    client_alive_count_max: int = Field(3, ge=1)
    rekey_bytes: int = Field(1 << 30, ge=1 << 20)
    chacha20: bool = False
    accept_env: tuple[str, ...] = ("LANG", "LC_*")
    banner: str = ""


class LocalUsers(Section):
    """Users in a file that `bastion users` writes."""

    file: Path = Path("users.yaml")


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


class Auth(Section):
    """Ways to sign in, asked in this order; at least one."""

    local: LocalUsers | None = None
    ldap: Ldap | None = None

    @model_validator(mode="after")
    def _some_way_in(self) -> Self:
        if self.local is None and self.ldap is None:
            raise ValueError("at least one way to sign in is right: local or ldap")
        return self


class EngineTls(Section):
    """The files that `docker --tlscacert --tlscert --tlskey` takes."""

    ca: InputFile
    cert: InputFile
    key: InputFile


class Engine(Section):
    """One Docker engine (or Podman's socket)."""

    name: Name = "local"
    cluster: Name | None = None  # the `cluster/` in front of an address that names this engine's group
    url: EngineUrl = "unix:///var/run/docker.sock"
    tls: EngineTls | None = None
    timeout: Seconds = 10
    exec_starts: int = Field(8, ge=1)  # at a time
    exec_kills: int = Field(4, ge=1)  # at a time

    @model_validator(mode="after")
    def _tls_over_tcp(self) -> Self:
        if self.tls is not None and not self.url.startswith("tcp://"):
            raise ValueError("tls with a url of tcp://host:2376 is right; over a unix socket there is no TLS")
        return self


class AccessRule(Section):
    """Allows `users` and members of `groups` the containers whose app matches one of `apps` (shell patterns)."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    apps: tuple[str, ...] = Field(min_length=1)
    clusters: tuple[str, ...] = Field(("*",), min_length=1)

    @model_validator(mode="after")
    def _for_somebody(self) -> Self:
        if not self.users and not self.groups:
            raise ValueError("users or groups, or both, is right: this rule allows nobody anything")
        return self


class Access(Section):
    """Who may enter what. Nothing here and no label: nobody."""

    owners_label: bool = True  # `bastion.owners: alice,@group`
    group_template: str | None = None  # "app-{app}": a member of this group owns the app
    rules: tuple[AccessRule, ...] = ()
    protected: tuple[str, ...] = ()  # container names or ids that are never entered

    @field_validator("group_template")
    @classmethod
    def _group_of_the_app(cls, value: str | None) -> str | None:
        if value is not None and "{app}" not in value:
            raise ValueError("a template with {app} in it is right, such as app-{app}; else one group owns every app")
        return value


class Recording(Section):
    """What was seen, as asciicast files."""

    folder: Path = Path("recordings")
    mode: Literal["strict", "best_effort"] = "strict"
    max_bytes: int = Field(64 << 20, ge=0)  # a stream


class Database(Section):
    """SQLAlchemy URL; sqlite+aiosqlite or postgresql+psycopg."""

    url: DatabaseUrl = SecretStr("sqlite+aiosqlite:///bastion.db")

    def resolved(self, folder: Path) -> Self:
        url = make_url(self.url.get_secret_value())
        if url.drivername != "sqlite+aiosqlite" or url.database in (None, "", ":memory:"):
            return self
        url = url.set(database=str(folder / str(url.database)))
        return self.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})


class Audit(Section):
    """The audit log: one JSON object a line."""

    file: Path | None = Path("audit.jsonl")
    stdout: bool = False

    @model_validator(mode="after")
    def _some_sink(self) -> Self:
        if self.file is None and not self.stdout:
            raise ValueError("at least one place for the audit log is right: file, or stdout: true")
        return self


class Config(Section):
    """All of it."""

    bastion_id: Name = Field(default_factory=socket.gethostname, validate_default=True)
    ssh: Ssh = Ssh()
    auth: Auth
    engines: tuple[Engine, ...] = Field((Engine(),), min_length=1)
    access: Access = Access()
    recording: Recording = Recording()
    database: Database = Database()
    audit: Audit = Audit()

    @field_validator("engines")
    @classmethod
    def _each_engine_once(cls, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        _unique(tuple(engine.name for engine in engines))
        _unique(tuple(engine.url for engine in engines))  # else each container would be there twice
        return engines
