"""With the real provider where it can be brought to it; else with one that only the test knows (see `hostile`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from joserfc.jwk import Key

from bastion.auth import device_flow
from bastion.auth.conversation import Challenge, Conversation
from bastion.auth.oidc import Oidc
from bastion.auth.refusals import REFUSED, TOLD, UNAVAILABLE
from bastion.config import Oidc as Section
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity
from tests.auth.test_oidc import of, section, token_of, well_known
from tests.servers.http import HttpServer, Request, http_server
from tests.servers.oidc import CLIENT, SCOPE, SECRET, Provider, new_key
from tests.servers.process import wait_until

FLOW = {"device_flow": True, "client_id": CLIENT, "client_secret": SECRET, "scope": SCOPE}


@contextlib.asynccontextmanager
async def conversing(config: Section, user: str = "alice") -> AsyncIterator[Conversation]:
    method = Oidc(config)
    conversation = await method.conversation(user, "192.0.2.1")
    assert conversation is not None
    try:
        yield conversation
    finally:
        await conversation.close()
        await method.close()


async def shown(conversation: Conversation) -> str:
    challenge = await conversation.start()
    assert isinstance(challenge, Challenge)
    assert challenge.prompts == ()
    assert all(line.isprintable() for line in challenge.instruction.split("\n"))
    return challenge.instruction


async def refusal(step: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await step
    no = TOLD.get(caught.value.reason, REFUSED)
    assert caught.value.user_text == (UNAVAILABLE if isinstance(caught.value, Unavailable) else no)
    assert caught.value.log_text.isprintable()
    return caught.value


def link(text: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.startswith("    "))


async def test_who_approves_is_who_signs_in(provider: Provider) -> None:
    async with conversing(section(provider, **FLOW)) as conversation:
        text = await shown(conversation)
        waiting = asyncio.create_task(conversation.answer([]))
        await asyncio.to_thread(provider.approve, link(text), "alice")
        identity = await waiting
        assert isinstance(identity, Identity)
        assert (identity.user, identity.method, identity.groups) == ("alice", "oidc-device", {"developers", "app-web"})
        assert identity.expires is not None
    async with conversing(section(provider, **FLOW), "alice") as conversation:
        text = await shown(conversation)
        await asyncio.to_thread(provider.approve, link(text), "bob")
        assert (await refusal(conversation.answer([]))).reason is Reason.ANOTHER_USER


async def test_who_does_not_agree(provider: Provider) -> None:
    async with conversing(section(provider, **FLOW)) as conversation:
        text = await shown(conversation)
        await asyncio.to_thread(provider.approve, link(text), "alice", abort=True)
        assert (await refusal(conversation.answer([]))).reason is Reason.DEVICE_DENIED


async def test_a_client_secret_that_is_wrong_is_not_the_users_fault(provider: Provider) -> None:
    async with conversing(section(provider, **{**FLOW, "client_secret": "hunter2"})) as conversation:
        no = await refusal(conversation.start())
        assert no.reason is Reason.SSO_UNAVAILABLE
        assert "invalid_client" in no.log_text
        assert "hunter2" not in no.log_text


# ---- with one that misbehaves ----


@pytest.fixture
def key() -> Key:
    return new_key()


CODE = {"device_code": "d", "user_code": "ABCD", "verification_uri": "http://127.0.0.1/device", "expires_in": 600}


@pytest.fixture
def hostile(key: Key, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """Says what no real provider can be made to; here it is asked every 1 to 60 ms instead of seconds."""
    monkeypatch.setattr(device_flow, "sleep", lambda seconds: asyncio.sleep(seconds / 1000))
    with http_server() as server:
        endpoints = {"device_authorization_endpoint": f"{server.url}/code", "token_endpoint": f"{server.url}/token"}
        server.routes["/.well-known/openid-configuration"] = well_known(server, **endpoints)
        server.routes["/jwks"] = lambda request: request.json({"keys": [key.as_dict(private=False)]})
        server.routes["/code"] = lambda request: request.json(CODE)
        yield server


def says(*errors: str) -> Callable[[Request], None]:
    """One after the other, and the last for ever."""
    left = list(errors)

    def answer(request: Request) -> None:
        error = left.pop(0) if len(left) > 1 else left[0]
        request.json({"error": error}, 400)

    return answer


def asked_at(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between the questions, as they were meant."""
    waits: list[float] = []

    async def noted(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(device_flow, "sleep", noted)
    monkeypatch.setattr(device_flow, "monotonic", lambda: sum(waits))
    return waits


async def test_interval_and_slow_down(hostile: HttpServer, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = asked_at(hostile, monkeypatch)
    hostile.routes["/code"] = lambda request: request.json({**CODE, "interval": 2})
    left = ["authorization_pending", "slow_down", "authorization_pending", "slow_down"]

    def answer(request: Request) -> None:
        if left:
            request.json({"error": left.pop(0)}, 400)
        else:
            request.json({"id_token": token_of(hostile, key, aud=CLIENT)})

    hostile.routes["/token"] = answer
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        assert isinstance(await conversation.answer([]), Identity)
    assert waits == [2, 2, 7, 7, 12]


async def test_slow_down_for_ever_ends(hostile: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = asked_at(hostile, monkeypatch)
    hostile.routes["/token"] = says("slow_down")
    hostile.routes["/code"] = lambda request: request.json({**CODE, "expires_in": 10**9})
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        assert (await refusal(conversation.answer([]))).reason is Reason.DEVICE_CODE_EXPIRED
    assert device_flow.LONGEST - device_flow.SLOWEST <= sum(waits) <= device_flow.LONGEST
    assert max(waits) == device_flow.SLOWEST


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("authorization_pending", "expired_token"), Reason.DEVICE_CODE_EXPIRED),
        (says("access_denied"), Reason.DEVICE_DENIED),
        (says("invalid_client"), Reason.SSO_UNAVAILABLE),
        (says("\x1b[2J"), Reason.SSO_UNAVAILABLE),
        (lambda request: request.json({"access_token": "a"}), Reason.SSO_UNAVAILABLE),
        (lambda request: request.json({"id_token": "a.b.c"}), Reason.MALFORMED_TOKEN),
        (lambda request: request.json({"id_token": 1}), Reason.SSO_UNAVAILABLE),
    ],
)
async def test_how_it_may_end(hostile: HttpServer, answer: Callable[[Request], None], reason: Reason) -> None:
    hostile.routes["/token"] = answer
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        assert (await refusal(conversation.answer([]))).reason is reason


async def test_an_outage_in_the_middle_is_waited_out(
    hostile: HttpServer, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asked_at(hostile, monkeypatch)
    failures = [lambda request: request.json({}, 503), lambda request: request.raw(b"", 302, Location="/")]

    def answer(request: Request) -> None:
        failures.pop()(request) if failures else request.json({"id_token": token_of(hostile, key, aud=CLIENT)})

    hostile.routes["/token"] = answer
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        assert isinstance(await conversation.answer([]), Identity)
    assert waits == [5, 10, 20]
    hostile.routes["/token"] = lambda request: request.json({}, 503)
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        assert (await refusal(conversation.answer([]))).reason is Reason.SSO_UNAVAILABLE


@pytest.mark.parametrize(
    "changes",
    [
        {"user_code": "A\x1b[2JB"},
        {"user_code": "A\nB"},
        {"user_code": ""},
        {"user_code": "A" * 1000},
        {"user_code": None},
        {"verification_uri": "https://é.example.org"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "http://sso.example.org"},
        {"device_code": 1},
        {"error": "\x1b[2J"},
    ],
    ids=ascii,
)
async def test_what_is_not_shown(hostile: HttpServer, changes: dict[str, Any]) -> None:
    hostile.routes["/code"] = lambda request: request.json({**CODE, **changes})
    async with conversing(of(hostile, **FLOW)) as conversation:
        assert (await refusal(conversation.start())).reason is Reason.SSO_UNAVAILABLE


async def test_what_is_shown(hostile: HttpServer) -> None:
    async with conversing(of(hostile, **FLOW)) as conversation:
        text = await shown(conversation)
        assert "http://127.0.0.1/device\n" in text
        assert "enter ABCD. The code is good for 10 minutes." in text
    with_code = {**CODE, "verification_uri_complete": "http://127.0.0.1/device?c=ABCD", "expires_in": 60}
    hostile.routes["/code"] = lambda request: request.json(with_code)
    async with conversing(of(hostile, **FLOW)) as conversation:
        text = await shown(conversation)
        assert "http://127.0.0.1/device?c=ABCD\n" in text
        assert "shows the code ABCD. The code is good for 1 minute." in text


async def test_no_more_questions_when_the_client_leaves(hostile: HttpServer) -> None:
    hostile.routes["/token"] = says("authorization_pending")
    async with conversing(of(hostile, **FLOW)) as conversation:
        await shown(conversation)
        waiting = asyncio.create_task(conversation.answer([]))
        await asyncio.to_thread(wait_until, lambda: "/token" in hostile.paths(), "the provider is asked")
        waiting.cancel()
        await asyncio.wait({waiting})
        asked = len(hostile.asked)
        assert asked > 2
    assert len(hostile.asked) == asked
