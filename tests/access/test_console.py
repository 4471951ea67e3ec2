import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from bastion.access import console as access_console
from bastion.access.console import Console
from bastion.config import LainOwners
from bastion.errors import Reason, Unavailable
from bastion.model import Identity
from tests.servers.http import HttpServer, Request
from tests.servers.lain import lain

ALICE = Identity("alice", "lain", token="alices-token")


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with lain() as started:
        yield started


@pytest.fixture
async def console(server: HttpServer) -> AsyncIterator[Console]:
    made = Console(LainOwners(console=server.url, timeout=0.5), server.url)
    yield made
    await made.close()


async def test_a_role_is_a_yes_and_all_else_a_no(console: Console, server: HttpServer) -> None:
    assert await console.owned(ALICE, {"web", "shop", "vault", "unknown"}) == {"web"}
    assert await console.owned(Identity("bob", "lain", token="bobs-token"), {"web", "vault"}) == {"vault"}
    assert await console.owned(Identity("alice", "lain", token="made-up"), {"web"}) == frozenset()
    asked = len(server.asked)
    assert await console.owned(Identity("alice", "ldap"), {"web"}) == frozenset()  # nobody to ask as
    assert len(server.asked) == asked


async def test_an_apps_name_stays_in_its_place(console: Console, server: HttpServer) -> None:
    assert await console.owned(ALICE, {"../web", "web/roles/?x"}) == frozenset()
    assert set(server.paths()) == {f"/api/v1/repos/{name}/roles/" for name in ("..%2Fweb", "web%2Froles%2F%3Fx")}


@pytest.mark.parametrize(
    "body",
    [{}, {"role": None}, {"role": "admin"}, {"role": {}}, {"role": {"role": None}}, {"role": {"role": ["admin"]}}],
    ids=str,
)
async def test_a_yes_that_is_not_clear_is_a_no(console: Console, server: HttpServer, body: dict[str, object]) -> None:
    server.routes["/api/v1/repos/web/roles/"] = lambda request: request.json(body)
    assert await console.owned(ALICE, {"web"}) == frozenset()


BAD: dict[str, Callable[[Request], None]] = {
    "slow": lambda request: request.stall(),
    "500": lambda request: request.json({}, 500),
    "400": lambda request: request.json({"role": {"role": "admin"}}, 400),
    "redirect": lambda request: request.raw(b"", 302, Location="/login"),
    "a page": lambda request: request.raw(b"<html>"),
}


@pytest.mark.parametrize("how", BAD)
async def test_no_answer_is_unavailable_also_beside_a_yes(console: Console, server: HttpServer, how: str) -> None:
    server.routes["/api/v1/repos/shop/roles/"] = BAD[how]
    with pytest.raises(Unavailable) as caught:
        await console.owned(ALICE, {"web", "shop"})
    assert caught.value.reason is Reason.OWNERSHIP_UNAVAILABLE
    assert "alices-token" not in caught.value.log_text
    assert await console.owned(ALICE, {"web"}) == {"web"}


async def test_many_apps_take_no_longer_than_all_may(
    console: Console, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_seconds", 1.0)

    def slowly(request: Request) -> None:
        request.server.owner.stopping.wait(0.3)
        request.json({}, 404)

    apps = [f"app{number}" for number in range(8 * access_console.AT_ONCE)]
    for app in apps:
        server.routes[f"/api/v1/repos/{app}/roles/"] = slowly
    start = time.monotonic()
    with pytest.raises(Unavailable, match="64 apps within 1 s"):
        await console.owned(ALICE, apps)
    assert time.monotonic() - start < 10
