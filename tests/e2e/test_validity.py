"""Who may no longer be inside is out: groups that change, users who go, credentials that end."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from bastion.auth.users_file import changing_users
from tests.e2e.test_certificates import keygen
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.slapd import GROUPS, PASSWORD, PEOPLE, READER_DN, slapd

VAULT = "alice+vault.db.1"


@pytest.fixture
def checked(folder: Path, engine: Engine, bastion: Bastion) -> Iterator[Bastion]:
    """alice may enter vault as long as she is on call."""
    with changing_users(folder / "users.yaml") as users:
        users["alice"] = users["alice"].model_copy(update={"groups": ["oncall"]})
    keygen("-N", "", "-t", "ed25519", "-f", folder / "ca")
    shutil.copy(bastion.folder / "alice_key.pub", folder)
    authorities = {"ca_key": None, "authorities": [(folder / "ca.pub").read_text()]}
    auth = {"local": {"file": "users.yaml"}, "certificates": authorities, "disconnect_expired": True}
    access = {"rules": [{"groups": ["oncall"], "apps": ["vault"]}], "recheck_interval": 0.5}
    with serving(folder, engine.url, auth=auth, access=access) as started:
        yield started


async def connect(bastion: Bastion, login: str) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", bastion.port, username=login, client_keys=[f"{bastion.folder}/alice_key"], known_hosts=None
    )


async def test_who_leaves_the_team_is_out_of_the_shell(checked: Bastion) -> None:
    async with await connect(checked, VAULT) as connection:
        inside = await connection.create_process("echo in; exec sleep 1000")
        assert await inside.stdout.readline() == "in\n"
        with changing_users(checked.folder / "users.yaml") as users:
            users["alice"] = users["alice"].model_copy(update={"groups": []})
        done = await inside.wait(timeout=30)
        assert (done.exit_status, done.stderr) == (255, "You may no longer enter vault.db.1.\n")
        again = await connection.run("echo in")  # on the same connection, as with a ControlMaster
        assert (again.exit_status, again.stdout) == (1, "")
    end = checked.wait_for_event("session.end", status="revoked")
    assert (end["user"], end["reason"]) == ("alice", "not_owner")


async def test_who_leaves_a_group_of_the_directory_is_out_as_well(folder: Path, engine: Engine) -> None:
    (folder / "slapd").mkdir()
    with slapd(folder / "slapd") as directory:
        carol, dave = directory.add_user("carol"), directory.add_user("dave")
        oncall = directory.add_group("oncall", carol, dave)
        ldap = {"servers": [directory.tls_url], "ca_file": str(directory.ca_file), "search_base": PEOPLE}
        ldap |= {"bind_dn": READER_DN, "bind_password": PASSWORD, "group_base": GROUPS}
        access = {"rules": [{"groups": ["oncall"], "apps": ["vault"]}], "recheck_interval": 0.5}
        with serving(folder, engine.url, auth={"local": None, "ldap": ldap}, access=access) as bastion:
            signing_in = {"username": "carol+vault.db.1", "password": PASSWORD, "known_hosts": None}
            async with asyncssh.connect("127.0.0.1", bastion.port, **signing_in) as connection:
                inside = await connection.create_process("echo in; exec sleep 1000")
                assert await inside.stdout.readline() == "in\n"
                directory.remove_member(oncall, carol)
                done = await inside.wait(timeout=60)
                assert (done.exit_status, done.stderr) == (255, "You may no longer enter vault.db.1.\n")
            end = bastion.wait_for_event("session.end", status="revoked")
            assert (end["user"], end["reason"]) == ("carol", "not_owner")


@pytest.mark.parametrize("change", [{"disabled": True}, {"authorized_keys": []}])
async def test_who_may_no_longer_sign_in_is_disconnected(checked: Bastion, change: dict[str, object]) -> None:
    connection = await connect(checked, "alice+web.busy.1")
    inside = await connection.create_process("echo in; exec sleep 1000")
    assert await inside.stdout.readline() == "in\n"
    with changing_users(checked.folder / "users.yaml") as users:
        users["alice"] = users["alice"].model_copy(update=change)
    done = await inside.wait(timeout=30)
    assert (done.exit_status, done.stderr) == (255, "You may no longer sign in here.\n")
    await connection.wait_closed()
    checked.wait_for_event("session.end", status="revoked", user="alice")


def test_a_session_ends_with_the_certificate_that_opened_it(checked: Bastion) -> None:
    with changing_users(checked.folder / "users.yaml") as users:
        users["alice"] = users["alice"].model_copy(update={"authorized_keys": []})
    key = checked.folder / "alice_key.pub"
    keygen("-s", checked.folder / "ca", "-I", "short", "-n", "alice", "-V", "-1m:+15s", key)
    command = checked.ssh_command("alice+web.busy.1", "echo in; exec sleep 1000")
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.stdout == b"in\n"
    assert b"What you signed in with has expired: sign in anew." in done.stderr
    assert done.returncode == 255
    checked.wait_for_event("session.end", status="revoked", reason="credential_expired")
    checked.wait_for_event("access.denied", user="alice", reason="credential_expired")
