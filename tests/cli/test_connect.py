"""`bastion check-config --connect` in front of real servers, and of none."""

import re
from pathlib import Path

import pytest
import yaml

from bastion.ssh import host_keys
from tests.cli.conftest import Run
from tests.servers.lain import lain
from tests.servers.oidc import CLIENT, SECRET, Provider
from tests.servers.postgres import postgres_server
from tests.servers.process import free_port
from tests.servers.slapd import PASSWORD, PEOPLE, READER_DN, slapd


@pytest.fixture(autouse=True)
def keys(tmp_path: Path) -> None:
    for name in ("ed25519", "rsa"):
        host_keys.generate(tmp_path / f"keys/ssh_host_{name}_key")


def written(folder: Path, **sections: object) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    return folder / "config.yaml"


def test_every_server_is_tried(bastion: Run, tmp_path: Path, provider: Provider) -> None:
    (tmp_path / "slapd").mkdir()
    with slapd(tmp_path / "slapd") as directory, lain() as servers:
        ldap = {"servers": [directory.tls_url], "ca_file": str(directory.ca_file), "search_base": PEOPLE}
        ldap |= {"bind_dn": READER_DN, "bind_password": PASSWORD}
        client = {"client_id": CLIENT, "client_secret": SECRET}
        oidc = {"issuer": provider.issuer, "ca_file": str(provider.ca_file), "audience": [CLIENT], **client}
        engine = {"url": f"unix://{tmp_path}/no.sock"}
        oidc["device_flow"] = True
        path = written(
            tmp_path,
            auth={"ldap": ldap, "oidc": oidc, "lain": {"sso": servers.url}},
            access={"lain": {"console": servers.url}},
            engines=[engine],
        )
        done = bastion("check-config", "--connect", "-c", path)
        found = [line[12:] for line in done.stdout.splitlines() if line.startswith("found ")]
        assert [re.sub(r" \(\d+ ms\)$", "", line) for line in found] == [
            f"LDAP {directory.tls_url}: bound as {READER_DN}, and found {PEOPLE}",
            f"OpenID {provider.issuer}: metadata, and 1 keys (EC)",
            f"OpenID {provider.issuer} device flow: gives codes",
            f"LAIN {servers.url}/api/me: refuses a made-up token, as it should",
            f"LAIN {servers.url}/api/v1/repos: knows no role of a made-up token, as it should be",
            f"database {tmp_path}/bastion.db: not there yet: the bastion makes it when it starts",
        ]
        assert done.returncode == 1
        (problem,) = done.stderr.splitlines()
        assert problem.startswith(f"engine local unix://{tmp_path}/no.sock: ")
        # secrets that are wrong are found out, and not shown
        oidc |= {"client_secret": "hunter2", "opaque_tokens": "introspection"}
        ldap["bind_password"] = "hunter2"
        done = bastion("check-config", "--connect", "-c", written(tmp_path, auth={"ldap": ldap, "oidc": oidc}))
        assert "bind_dn and bind_password are refused" in done.stderr
        assert "introspection: introspection: client_id and client_secret are refused" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr
        assert done.returncode == 1


def test_nobody_there(bastion: Run, tmp_path: Path) -> None:
    port = free_port()
    ldap = {"servers": [f"ldaps://127.0.0.1:{port}"], "search_base": PEOPLE}
    oidc = {"issuer": f"https://127.0.0.1:{port}", "audience": ["a"], "opaque_tokens": "userinfo"}
    url = f"postgresql+psycopg://bastion:hunter2@127.0.0.1:{port}/bastion"
    path = written(tmp_path, auth={"ldap": ldap, "oidc": oidc}, database={"url": url})
    done = bastion("check-config", "--connect", "-c", path)
    assert done.returncode == 1
    problems = done.stderr.splitlines()
    assert [line.partition(": ")[0] for line in problems[:3]] == [
        f"LDAP ldaps://127.0.0.1:{port}",
        f"OpenID https://127.0.0.1:{port}",
        f"OpenID https://127.0.0.1:{port} userinfo",
    ]
    assert problems[-1].startswith(f"database bastion at 127.0.0.1:{port}/bastion: ")
    assert "hunter2" not in done.stdout + done.stderr


def test_a_role_that_may_do_more_than_it_needs_is_warned_of(bastion: Run, tmp_path: Path) -> None:
    with postgres_server() as server:
        name = server.create_database()
        init = ("db", "init", "--owner-url", server.url(name), "--role", "bastion", "--password-stdin")
        assert bastion(*init, input="correct horse").returncode == 0

        def found(user: str) -> str:
            engine, database = {"url": f"unix://{tmp_path}/no.sock"}, {"url": server.url(name, user)}
            path = written(tmp_path, auth={"local": {}}, engines=[engine], database=database)
            done = bastion("check-config", "--connect", "-c", path)
            assert "database" not in done.stderr
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("found       database ")]
            return re.sub(r" \(\d+ ms\)$", "", line.partition("tables of version ")[2])

        assert re.fullmatch(r"\d+", found("bastion"))
        more = "warning: the role may do more than serving needs (bastion db init sets one up that may not)"
        assert found("postgres").endswith(f"; {more}: it is a superuser")
        with server.connect(name) as owner:
            owner.execute('GRANT DELETE ON events TO bastion; GRANT UPDATE ("user") ON sessions TO bastion')
        assert found("bastion").endswith(f"; {more}: DELETE on events; UPDATE (user) on sessions")
