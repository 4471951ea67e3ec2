from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from bastion.config import (
    Access,
    AccessRule,
    Audit,
    Auth,
    Config,
    Database,
    Engine,
    LocalUsers,
    Section,
    Ssh,
    host_and_port,
    load_config,
)

AUTH = Auth(local=LocalUsers())


@pytest.mark.parametrize(
    ("address", "taken_apart"),
    [
        ("0.0.0.0:2222", ("0.0.0.0", 2222)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:22", ("::1", 22)),
        ("[::]:65535", ("::", 65535)),
        ("[fe80::1%eth0]:22", ("fe80::1%eth0", 22)),
    ],
)
def test_an_address_to_listen_on_is_taken_apart(address: str, taken_apart: tuple[str, int]) -> None:
    assert host_and_port(address) == taken_apart
    assert Ssh(listen=(address,)).listen == (address,)


@pytest.mark.parametrize(
    "address", ["", "22", ":22", "a:", "a:b", "::1:22", "[::1]", "a:65536", "a:-1", "a:٣", "a b:1"]
)
def test_what_is_no_address_to_listen_on_says_what_is_right(address: str) -> None:
    with pytest.raises(ValidationError, match=r"such as 0\.0\.0\.0:2222 or \[::1\]:2222"):
        Ssh(listen=(address,))


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (Ssh, {"listen": ("a:1", "b:1", "a:1")}, "'a:1' is there twice"),
        (Ssh, {"listen": ()}, "at least 1 item"),
        (Ssh, {"host_keys": ()}, "at least 1 item"),
        (Ssh, {"max_startups": {"start": 3, "full": 2}}, "start is 3, full is 2"),
        (Auth, {}, "at least one way to sign in"),
        (Engine, {"name": "a b"}, "a name of letters, digits"),
        (Engine, {"cluster": "a/b"}, "a name of letters, digits"),
        (Engine, {"cluster": ""}, "a name of letters, digits"),
        (Engine, {"url": "ssh://a"}, "unix:///var/run/docker.sock or tcp://host:2376"),
        (Engine, {"url": "unix://docker.sock"}, "unix:///var/run/docker.sock or tcp://host:2376"),
        (Engine, {"tls": {"ca": "a", "cert": "b", "key": "c"}}, "over a unix socket there is no TLS"),
        (AccessRule, {"users": ["a"], "apps": []}, "at least 1 item"),
        (AccessRule, {"users": ["a"], "apps": ["a"], "clusters": []}, "at least 1 item"),
        (AccessRule, {"apps": ["a"]}, "this rule allows nobody"),
        (Access, {"group_template": "admins"}, "one group owns every app"),
        (Audit, {"file": None}, "at least one place for the audit log"),
        (Audit, {"syslog": {"url": "http://a"}}, "tls://host:6514 or unix:///dev/log is right"),
        (Audit, {"syslog": {"url": "tcp://a"}}, "a host and a port is right"),
        (Audit, {"syslog": {"url": "unix://log"}}, "unix:///dev/log is right"),
        (Audit, {"rotate_every": "month"}, "'hour', 'day' or 'week'"),
        (Audit, {"auditors": ["@"]}, "the name of a user, or @group"),
        (Audit, {"auditors": ["a, b"]}, "the name of a user, or @group"),
        (Audit, {"auditors": ["@a", "@a"]}, "'@a' is there twice"),
        (Database, {"url": "mysql://a/b"}, "the driver here is 'mysql'"),
        (Database, {"url": "postgresql+psycopg2://a/b"}, "the driver here is 'postgresql.psycopg2'"),
        (Database, {"url": "bastion.db"}, "this is no database URL"),
        (Database, {"url": "sqlite+aiosqlite://:x/y"}, "this is no database URL"),
    ],
)
def test_what_does_not_fit_together_says_what_would(
    section: type[Section], values: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)


def test_an_engine_is_there_once() -> None:
    other = "tcp://other:2375"
    with pytest.raises(ValidationError, match="'local' is there twice"):
        Config(auth=AUTH, engines=(Engine(), Engine(url=other)))
    with pytest.raises(ValidationError, match=r"'unix:///var/run/docker\.sock' is there twice"):
        Config(auth=AUTH, engines=(Engine(), Engine(name="other")))


def test_engines_may_form_a_cluster() -> None:
    engines = (Engine(cluster="prod"), Engine(name="node2", cluster="prod", url="tcp://node2:2376"))
    assert Config(auth=AUTH, engines=engines).engines == engines


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("sqlite+aiosqlite:///a.db", "sqlite+aiosqlite:////etc/bastion/a.db"),
        ("sqlite+aiosqlite:////var/a.db", "sqlite+aiosqlite:////var/a.db"),
        ("sqlite+aiosqlite://", "sqlite+aiosqlite://"),
        ("sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite:///:memory:"),
        ("postgresql+psycopg://u:p%40@h/d?sslmode=require", "postgresql+psycopg://u:p%40@h/d?sslmode=require"),
    ],
)
def test_only_the_path_of_a_database_file_is_resolved(url: str, resolved: str) -> None:
    assert Database(url=SecretStr(url)).resolved(Path("/etc/bastion")).url.get_secret_value() == resolved


def test_no_error_shows_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Database(url=SecretStr("hunter2"))
    with pytest.raises(ValidationError) as other:
        Config.model_validate({"auth": AUTH, "database": "hunter2"})
    assert "hunter2" not in f"{caught.value} {other.value}"


def test_a_configuration_can_not_be_changed() -> None:
    config = Config(auth=AUTH)
    with pytest.raises(ValidationError, match="frozen"):
        config.ssh.max_sessions = 3  # type: ignore[misc] # what is tested


def test_the_folders_that_no_container_may_mount(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "auth: {local: {file: users/users.yaml}}\naudit: {file: log/audit.jsonl}\nstate_folder: /srv/state\n"
        "database: {url: sqlite+aiosqlite:///rows/bastion.db}\n"
    )
    folders = {str(folder) for folder in load_config(path).guarded_folders}
    assert folders == {"/srv/state", f"{tmp_path}"} | {
        f"{tmp_path}/{name}" for name in ("keys", "log", "recordings", "rows", "users")
    }
