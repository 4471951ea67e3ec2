"""OpenSSH user certificates, in front of a stock ssh: made by the bastion's own CA, and by another."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import on_terminal
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import Engine

BUSY = "alice+web.busy.1"


def keygen(*words: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def certified(servers_folder: Path, bastion: Bastion, engine: Engine) -> Iterator[Bastion]:
    """alice has a key that nobody knows; `ca` is another's CA, `revoked` what is revoked."""
    folder = servers_folder / "certificates"
    folder.mkdir()
    for name in ("users.yaml", "alice_key", "alice_key.pub", "bob_key"):
        shutil.copy(bastion.folder / name, folder / name)
    shutil.copytree(bastion.folder / "keys", folder / "keys")
    keygen("-N", "", "-t", "ed25519", "-f", folder / "ca")
    keygen("-N", "", "-t", "ed25519", "-f", folder / "new_key")
    (folder / "revoked").write_text("")
    certificates = {"authorities": [(folder / "ca.pub").read_text()]}
    auth = {"local": {"file": "users.yaml"}, "certificates": certificates, "revoked_keys": "revoked"}
    (folder / "config.yaml").write_text("auth: {local: {}, certificates: {}}\n")
    made = subprocess.run([*BASTION, "keys", "init", "-c", f"{folder}/config.yaml"], check=True, capture_output=True)
    assert b"user_ca_ed25519_key (new)" in made.stdout
    with serving(folder, engine.url, auth=auth) as started:
        yield started


def certificate(bastion: Bastion, *options: str, principals: str = "alice") -> None:
    """Of the other CA, for the new key: ssh finds it by its name."""
    ca, key = bastion.folder / "ca", bastion.folder / "new_key.pub"
    keygen("-s", ca, "-I", "from elsewhere", "-n", principals, "-z", 9, *options, key)


def ssh(bastion: Bastion, *words: str, login: str = BUSY) -> "subprocess.CompletedProcess[bytes]":
    return bastion.ssh(login, *words, key="new")


def sign_user(bastion: Bastion, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [*BASTION, "keys", "sign-user", "alice", "--key", f"{bastion.folder}/new_key.pub", *options]
    done = subprocess.run(
        [*command, "-c", f"{bastion.folder}/config.yaml"], capture_output=True, text=True, check=False
    )
    (bastion.folder / "new_key-cert.pub").write_text(done.stdout)
    return done


def test_what_the_bastion_signs_opens_the_door(certified: Bastion) -> None:
    assert sign_user(certified, "--lifetime", "5m").returncode == 0
    assert ssh(certified, "echo in").stdout == b"in\n"
    issued = certified.wait_for_event("certificate.issued", user="alice")
    login = certified.wait_for_event("user.login", user="alice", method="certificate")
    assert {name: login[name] for name in ("key", "key_id", "serial", "ca")} == {
        name: issued[name] for name in ("key", "key_id", "serial", "ca")
    }
    assert (issued["seconds"], issued["key_id"]) == (300, f"alice by {issued['by']}")
    shown = subprocess.run(
        ["ssh-keygen", "-Lf", certified.folder / "new_key-cert.pub"], capture_output=True, check=True
    )
    assert b"permit-pty" in shown.stdout
    assert b"forwarding" not in shown.stdout


def test_what_can_not_be_signed(certified: Bastion) -> None:
    events = len(certified.events("certificate.issued"))
    for options, right in (
        (("--lifetime", "8d"), "7d at the most"),
        (("--lifetime", "forever"), "is right"),
        (("--source-address", "here"), "does not appear to be"),
        (("--key", "/nowhere"), "can not be read"),
        (("--key", f"{certified.folder}/config.yaml"), "no public key"),
    ):
        done = sign_user(certified, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert right in done.stderr or right.replace("7d at the most", "at the most, 7d") in done.stderr
    assert len(certified.events("certificate.issued")) == events


def test_another_ca_and_what_it_may_not(certified: Bastion) -> None:
    certificate(certified)
    assert ssh(certified, "echo in").stdout == b"in\n"
    login = certified.wait_for_event("user.login", key_id="from elsewhere")
    assert login["serial"] == 9
    for options, principals, reason in (
        ((), "bob", "wrong_principal"),
        (("-V", "-2m:-1m"), "alice", "certificate_expired"),
        (("-V", "+1m:+2m"), "alice", "certificate_not_yet_valid"),
        (("-O", "source-address=192.0.2.0/24"), "alice", "certificate_not_allowed"),
        (("-O", "critical:no-such@example.org=1"), "alice", "certificate_not_allowed"),
    ):
        certificate(certified, *options, principals=principals)
        done = ssh(certified, "echo in")
        assert (done.stdout, done.returncode) == (b"", 255), reason
        assert b"Permission denied (publickey,password)." in done.stderr
        certified.wait_for_event("user.login_failed", user="alice", method="certificate", reason=reason)
    certificate(certified, "-O", "source-address=127.0.0.0/8")
    assert ssh(certified, "echo in").stdout == b"in\n"


def test_a_certificate_without_principals_is_nobodys(certified: Bastion) -> None:
    ca, key = certified.folder / "ca", certified.folder / "new_key.pub"
    keygen("-s", ca, "-I", "anybody", key)
    assert ssh(certified, "echo in").returncode == 255
    event = certified.wait_for_event("user.login_failed", user="alice", reason="wrong_principal")
    assert "has no principals" in certified.events("user.login_failed", reason="wrong_principal")[-1]["detail"], event


def test_a_forced_command(certified: Bastion) -> None:
    certificate(certified, "-O", 'force-command=echo "forced: $SSH_ORIGINAL_COMMAND"')
    assert ssh(certified, "rm -rf /").stdout == b"forced: rm -rf /\n"
    assert ssh(certified).stdout == b"forced: \n"
    start = certified.wait_for_event("session.start", user="alice", kind="exec")
    assert "forced" in start["command"]


def test_no_terminal(certified: Bastion) -> None:
    for options, shown in ((("-O", "no-pty"), b"PTY allocation request failed"), ((), b"/dev/")):
        certificate(certified, *options)
        with on_terminal(certified.ssh_command(BUSY, "tty", options=("-tt",), key="new")) as terminal:
            terminal.expect(shown)


def test_a_key_that_is_revoked_while_the_bastion_runs(certified: Bastion) -> None:
    revoked = certified.folder / "revoked"
    certificate(certified)
    spec = certified.folder / "spec"
    try:
        for specification in ("serial: 9", "id: from elsewhere"):
            assert ssh(certified, "echo in").stdout == b"in\n"
            spec.write_text(specification)
            keygen("-k", "-f", revoked, "-s", certified.folder / "ca.pub", spec)
            assert ssh(certified, "echo in").returncode == 255
            certified.wait_for_event("user.login_failed", user="alice", reason="key_revoked")
            revoked.write_text("")
        revoked.write_text((certified.folder / "alice_key.pub").read_text())
        assert certified.ssh(BUSY, "true").returncode == 255  # no certificate: her own key
        revoked.write_bytes(b"SSHKRL\n\0 and what is not known")
        done = ssh(certified, "echo in")
        assert b"sign-in is unavailable, try again" in done.stderr
    finally:
        revoked.write_text("")
    assert ssh(certified, "echo in").stdout == b"in\n"


def test_a_certificate_without_its_private_key(certified: Bastion, tmp_path: Path) -> None:
    """Whoever has seen it, as everybody may, has nothing."""
    certificate(certified)
    keygen("-N", "", "-t", "ed25519", "-f", tmp_path / "key")
    options = ("-o", f"CertificateFile={certified.folder}/new_key-cert.pub", "-i", str(tmp_path / "key"))
    done = certified.ssh(BUSY, "echo in", options=options, key="no")
    assert (done.stdout, done.returncode) == (b"", 255)
    with contextlib.suppress(FileNotFoundError):
        (certified.folder / "new_key-cert.pub").unlink()
    assert ssh(certified, "echo in").returncode == 255
