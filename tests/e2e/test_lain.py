"""LAIN's tokens and owners in front of a stock client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import another
from tests.e2e.test_logins import by_password
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.http import HttpServer
from tests.servers.lain import lain
from tests.servers.process import wait_until

ALICE = "token:alices-token"


@pytest.fixture(scope="session")
def server() -> Iterator[HttpServer]:
    with lain() as started:
        yield started


@pytest.fixture(scope="session")
def lain_bastion(servers_folder: Path, bastion: Bastion, engine: Engine, server: HttpServer) -> Iterator[Bastion]:
    folder = servers_folder / "lain"
    folder.mkdir()
    for app in ("web", "shop", "a.b"):
        engine.app(app, "lain", 1, owners="nobody")
    auth = {"lain": {"sso": server.url}, "local": None}
    access = {"lain": {"console": server.url, "domain": "example.org", "timeout": 2}}
    with serving(another(bastion, folder), engine.url, auth=auth, access=access) as started:
        yield started


def test_a_role_in_the_console_opens_the_door(lain_bastion: Bastion, server: HttpServer) -> None:
    assert by_password(lain_bastion, "alice+web.lain.1", ALICE, "echo in").stdout == b"in\n"
    login = lain_bastion.wait_for_event("user.login", user="alice", method="lain")
    assert login["groups"] == ["developers", "lainapp-example-org-a-b"]
    lain_bastion.wait_for_event("session.start", user="alice", address="web.lain.1", rule="lain-console")
    done = by_password(lain_bastion, "alice+shop.lain.1", ALICE, "echo in")  # a role that is empty
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"There is no container shop.lain.1 that you may enter." in done.stderr
    assert by_password(lain_bastion, "bob+web.lain.1", "token:bobs-token", "true").returncode == 1
    assert by_password(lain_bastion, "alice+web.lain.1", "token:made-up", "true").returncode == 255
    lain_bastion.wait_for_event("user.login_failed", user="alice", reason="token_refused")
    for path in lain_bastion.folder.rglob("*"):
        assert not path.is_file() or b"alices-token" not in path.read_bytes()


def test_outages_are_told_apart(lain_bastion: Bastion, server: HttpServer) -> None:
    """The sign-in's and the owners': each has a reason of its own, and neither opens a door."""
    roles, me = "/api/v1/repos/web/roles/", "/api/me"
    well = dict(server.routes)
    server.routes[roles] = lambda request: request.json({}, 500)
    done = by_password(lain_bastion, "alice+web.lain.1", ALICE, "echo in")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Who owns this can not be looked up at the moment" in done.stderr
    lain_bastion.wait_for_event("access.denied", user="alice", reason="ownership_unavailable")
    server.routes[me] = lambda request: request.stall()
    done = by_password(lain_bastion, "alice+web.lain.1", ALICE, "echo in", verbose=True)
    assert b"sign-in is unavailable, try again" in done.stderr
    lain_bastion.wait_for_event("user.login_failed", user="alice", reason="sso_unavailable")
    server.routes.update(well)
    assert by_password(lain_bastion, "alice+web.lain.1", ALICE, "echo in").stdout == b"in\n"


def test_a_group_of_two_apps_lets_nobody_in(lain_bastion: Bastion, engine: Engine) -> None:
    assert by_password(lain_bastion, "alice+a.b.lain.1", ALICE, "echo in").stdout == b"in\n"
    twin = engine.app("a-b", "lain", 1, owners="alice")

    def closed() -> bool:
        return by_password(lain_bastion, "alice+a.b.lain.1", ALICE, "echo in").returncode == 1

    wait_until(closed, "the bastion has seen the twin", 40)
    assert by_password(lain_bastion, "alice+a-b.lain.1", ALICE, "echo in").stdout == b"in\n"  # her own, by the label
    twin.remove(force=True)
