from pathlib import Path

import pytest

from bastion.ssh import host_keys
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    for name in ("ed25519", "rsa"):
        host_keys.generate(tmp_path / f"keys/ssh_host_{name}_key")
    return path


def test_what_the_bastion_would_do_is_shown(bastion: Run, config: Path) -> None:
    folder = config.parent
    (folder / "ca.pem").touch()
    config.write_text("""\
ssh: {listen: ["127.0.0.1:2222", "[::1]:2222"]}
auth:
  local:
  ldap: {servers: [ldaps://a, ldaps://b], search_base: dc=example}
  oidc: {issuer: "https://sso", audience: [bastion], client_id: bastion, client_secret: hunter2}
engines:
- {name: one, url: "tcp://one:2376", cluster: prod, tls: {ca: ca.pem, cert: ca.pem, key: ca.pem}}
- {name: two}
database: {url: "postgresql+psycopg://bastion:hunter2@db/bastion"}
audit: {stdout: true}
""")
    done = bastion("check-config", "-c", config)
    assert done.returncode == 0, done.stderr
    ed25519, rsa = host_keys.load([folder / "keys/ssh_host_ed25519_key", folder / "keys/ssh_host_rsa_key"])
    assert (
        done.stdout
        == f"""\
listen      127.0.0.1:2222
listen      [::1]:2222
host key    ssh-ed25519 {ed25519.get_fingerprint()}
host key    ssh-rsa {rsa.get_fingerprint()}
sign in     local users of {folder}/users.yaml (does not exist yet: bastion users add)
sign in     LDAP at ldaps://a, ldaps://b
sign in     tokens of https://sso
engine      one, cluster prod: tcp://one:2376 with TLS
engine      two: unix:///var/run/docker.sock
recordings  {folder}/recordings (writable), strict
database    postgresql+psycopg://bastion:***@db/bastion
audit log   {folder}/audit.jsonl
audit log   standard output
"""
    )
    assert not (folder / "recordings").exists()  # it only looked


def test_every_problem_is_printed_at_once(bastion: Run, config: Path) -> None:
    folder = config.parent
    (folder / "file").touch()
    config.write_text("""\
ssh:
  host_keys:
  - keys/ssh_host_ed25519_key
  - keys/ssh_host_rsa_key
auth: {local: {}}
recording: {folder: file}
audit: {file: /proc/audit/audit.jsonl}
database: {url: "sqlite+aiosqlite:////sys/bastion.db"}
""")
    (folder / "keys/ssh_host_ed25519_key").unlink()
    (folder / "keys/ssh_host_rsa_key").chmod(0o644)
    done = bastion("check-config", "-c", config)
    assert (done.returncode, done.stdout) == (1, "")
    right = "a folder that this user may write to is right"
    assert done.stderr.splitlines() == [
        f"{config}:3: ssh.host_keys[0]: {folder}/keys/ssh_host_ed25519_key does not exist; "
        "make it with: bastion keys init",
        f"{config}:4: ssh.host_keys[1]: {folder}/keys/ssh_host_rsa_key has mode 0644: others can read it; "
        f"mend it with: chmod 600 {folder}/keys/ssh_host_rsa_key",
        f"{config}:6: recording.folder: nothing can be made in {folder}/file; {right}",
        f"{config}:7: audit.file: nothing can be made in /proc/audit; {right}",
        f"{config}:8: database.url: nothing can be made in /sys; {right}",
    ]
