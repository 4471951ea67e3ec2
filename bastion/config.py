"""The configuration: frozen sections. Every path is resolved against the folder of the configuration file."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0)]
Network = IPv4Network | IPv6Network


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaxStartups(Section):
    """OpenSSH's MaxStartups start:rate:full, for connections that have not authenticated."""

    start: int = Field(10, ge=1)
    rate: int = Field(30, ge=0, le=100)  # percent
    full: int = Field(100, ge=1)


class Ssh(Section):
    """The SSH server, in OpenSSH's terms."""

    listen: tuple[str, ...] = ("0.0.0.0:2222",)
    host_keys: tuple[Path, ...] = (Path("keys/ssh_host_ed25519_key"), Path("keys/ssh_host_rsa_key"))
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

    servers: tuple[str, ...]  # ldaps://host, ldap://host:port; tried in order
    start_tls: bool = False
    verify: bool = True
    ca_file: Path | None = None
    allow_cleartext: bool = False  # ldap:// without StartTLS
    timeout: Seconds = 5
    pool_size: int = Field(8, ge=1)  # threads of its own
    bind_template: str | None = None  # "uid={user},ou=people,dc=example,dc=org"
    bind_dn: str | None = None
    bind_password: SecretStr | None = None
    search_base: str | None = None
    search_filter: str = "(uid={user})"
    user_attribute: str = "uid"
    member_of: str | None = "memberOf"  # read groups from the user's entry
    group_base: str | None = None  # or search for groups
    group_filter: str = "(member={dn})"
    group_name_attribute: str = "cn"
    nested_groups: bool = False


class Auth(Section):
    """Ways to sign in, asked in this order; at least one."""

    local: LocalUsers | None = None
    ldap: Ldap | None = None


class EngineTls(Section):
    ca: Path
    cert: Path
    key: Path


class Engine(Section):
    """One Docker engine (or Podman's socket)."""

    name: str = "local"
    cluster: str | None = None  # the `cluster/` in front of an address that names this engine
    url: str = "unix:///var/run/docker.sock"
    tls: EngineTls | None = None
    timeout: Seconds = 10
    exec_starts: int = Field(8, ge=1)  # at a time
    exec_kills: int = Field(4, ge=1)  # at a time


class AccessRule(Section):
    """Allows `users` and members of `groups` the containers whose app matches one of `apps` (shell patterns)."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    apps: tuple[str, ...]
    clusters: tuple[str, ...] = ("*",)


class Access(Section):
    """Who may enter what. Nothing here and no label: nobody."""

    owners_label: bool = True  # `bastion.owners: alice,@group`
    group_template: str | None = None  # "app-{app}": a member of this group owns the app
    rules: tuple[AccessRule, ...] = ()
    protected: tuple[str, ...] = ()  # container names or ids that are never entered


class Recording(Section):
    folder: Path = Path("recordings")
    mode: Literal["strict", "best_effort"] = "strict"
    max_bytes: int = Field(64 << 20, ge=0)  # a stream


class Database(Section):
    """SQLAlchemy URL; sqlite+aiosqlite or postgresql+psycopg."""

    url: SecretStr = SecretStr("sqlite+aiosqlite:///bastion.db")


class Audit(Section):
    file: Path | None = Path("audit.jsonl")
    stdout: bool = False


class Config(Section):
    ssh: Ssh = Ssh()
    auth: Auth
    engines: tuple[Engine, ...] = (Engine(),)
    access: Access = Access()
    recording: Recording = Recording()
    database: Database = Database()
    audit: Audit = Audit()
