import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from bastion.auth.lain import Lain
from bastion.auth.refusals import REFUSED, TOLD, UNAVAILABLE
from bastion.auth.tokens import Token
from bastion.config import LainSso
from bastion.errors import Reason, Refusal, Unavailable
from tests.servers.http import HttpServer, Request
from tests.servers.lain import lain

ALICES, BOBS = Token("alices-token", False), Token("bobs-token", False)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with lain() as started:
        yield started


@pytest.fixture
async def method(server: HttpServer) -> AsyncIterator[Lain]:
    made = Lain(LainSso(sso=f"{server.url}/", timeout=1))
    yield made
    await made.close()


async def refusal(method: Lain, user: str, token: Token) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await method.token(user, token, "192.0.2.1")
    no = TOLD.get(caught.value.reason, REFUSED)
    assert caught.value.user_text == (UNAVAILABLE if isinstance(caught.value, Unavailable) else no)
    assert caught.value.log_text.isprintable()
    assert token.value not in caught.value.log_text
    return caught.value


async def test_whose_token_it_is(method: Lain, server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    identity = await method.token("alice", ALICES, "192.0.2.1")
    assert identity is not None
    assert (identity.user, identity.method) == ("alice", "lain")
    assert identity.groups == {"developers", "lainapp-example-org-a-b"}
    assert identity.claims == {"fullname": "Alice", "email": "alice@example.org", "mobile": "1"}
    assert identity.token == "alices-token"
    assert "alices-token" not in repr(identity) + caplog.text
    assert (await refusal(method, "alice", BOBS)).reason is Reason.ANOTHER_USER
    assert (await refusal(method, "Alice", ALICES)).reason is Reason.ANOTHER_USER
    no = await refusal(method, "alice", Token("made-up", False))
    assert no.reason is Reason.TOKEN_REFUSED
    assert "invalid token" in no.log_text
    asked = len(server.asked)
    assert await method.token("alice", Token("a.b.c", True), "192.0.2.1") is None  # a JWT is not LAIN's
    assert len(server.asked) == asked


BAD: dict[str, Callable[[Request], None]] = {
    "slow": lambda request: request.stall(),
    "500": lambda request: request.json({}, 500),
    "404": lambda request: request.json({}, 404),
    "403": lambda request: request.json({"message": "no"}, 403),
    "redirect": lambda request: request.raw(b"", 302, Location="/login"),
    "a page": lambda request: request.raw(b"<html>"),
    "no name": lambda request: request.json({"groups": []}),
    "no groups": lambda request: request.json({"name": "alice"}),
    "groups that are none": lambda request: request.json({"name": "alice", "groups": "developers"}),
    "a name that is none": lambda request: request.json({"name": ["alice"], "groups": []}),
}


@pytest.mark.parametrize("how", BAD)
async def test_what_is_no_clear_answer_is_an_outage(method: Lain, server: HttpServer, how: str) -> None:
    server.routes["/api/me"], well = BAD[how], server.routes["/api/me"]
    assert (await refusal(method, "alice", ALICES)).reason is Reason.SSO_UNAVAILABLE
    server.routes["/api/me"] = well
    assert await method.token("alice", ALICES, "192.0.2.1") is not None


async def test_a_message_is_not_printed_as_it_is(method: Lain, server: HttpServer) -> None:
    answers: list[Any] = ["\x1b[2J", None, {"a": 1}]
    for message in answers:
        server.routes["/api/me"] = lambda request, message=message: request.json({"message": message}, 401)
        assert (await refusal(method, "alice", ALICES)).reason is Reason.TOKEN_REFUSED
