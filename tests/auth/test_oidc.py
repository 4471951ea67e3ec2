import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey

from bastion.auth import issuer
from bastion.auth.oidc import Oidc
from bastion.auth.refusals import REFUSED, TOLD, UNAVAILABLE
from bastion.auth.tokens import token_in
from bastion.config import Oidc as Section
from bastion.errors import ConfigError, Reason, Refusal, Unavailable
from bastion.model import Identity
from tests.servers.http import HttpServer, Request, http_server
from tests.servers.oidc import ACCOUNTS, AUDIENCE, CLIENT, SECRET, Provider, new_key, oidc_provider
from tests.servers.process import free_port, wait_until

IP = "192.0.2.1"


def section(provider: Provider, **options: Any) -> Section:
    made = {"issuer": provider.issuer, "audience": (AUDIENCE,), "ca_file": provider.ca_file, **options}
    return Section.model_validate(made)


@contextlib.asynccontextmanager
async def signing_in(config: Section) -> AsyncIterator[Oidc]:
    method = Oidc(config)
    try:
        yield method
    finally:
        await method.close()


async def sign_in(method: Oidc, user: str, password: str) -> Identity:
    token = token_in(password)
    assert token is not None
    identity = await method.token(user, token, IP)
    assert identity is not None
    return identity


async def refusal(method: Oidc, token: str, user: str = "alice") -> Refusal:
    with pytest.raises(Refusal) as caught:
        await sign_in(method, user, token)
    no = TOLD.get(caught.value.reason, REFUSED)
    assert caught.value.user_text == (UNAVAILABLE if isinstance(caught.value, Unavailable) else no)
    assert caught.value.log_text.isprintable()
    assert token not in caught.value.log_text
    return caught.value


# ---- with the real provider ----


async def test_tokens_that_the_provider_issues(provider: Provider) -> None:
    tokens = provider.tokens("alice", resource=AUDIENCE)
    async with signing_in(section(provider, audience=(AUDIENCE, CLIENT))) as method:
        for name in ("access_token", "id_token"):
            identity = await sign_in(method, "alice", tokens[name])
            assert (identity.user, identity.method, identity.groups) == (
                "alice",
                "oidc-token",
                {"developers", "app-web"},
            )
            assert identity.claims["iss"] == provider.issuer
            assert identity.expires is not None
            assert 500 < identity.expires.timestamp() - time.time() <= 600
        # who authenticated must be who was asked for
        assert (await refusal(method, tokens["id_token"], "bob")).reason is Reason.ANOTHER_USER
        bobs = provider.tokens("bob", resource=AUDIENCE)["access_token"]
        assert (await refusal(method, bobs, "alice")).reason is Reason.ANOTHER_USER
        assert (await sign_in(method, "bob", bobs)).groups == frozenset()
    async with signing_in(section(provider)) as method:
        assert (await refusal(method, tokens["id_token"])).reason is Reason.WRONG_AUDIENCE


async def test_bad_tokens_and_then_a_good_one(provider: Provider) -> None:
    now = int(time.time())
    stranger = ECKey.generate_key("P-256", {"kid": provider.keys[0].kid})
    header, payload, _ = provider.signed().split(".")
    cases: list[tuple[str, Reason]] = [
        (provider.signed(exp=now - 60), Reason.TOKEN_EXPIRED),
        (provider.signed(nbf=now + 60), Reason.TOKEN_NOT_YET_VALID),
        (provider.signed(aud="elsewhere"), Reason.WRONG_AUDIENCE),
        (provider.signed(iss="https://evil.example.org"), Reason.WRONG_ISSUER),
        (provider.signed(key=stranger), Reason.BAD_SIGNATURE),
        (provider.signed(key=new_key()), Reason.UNKNOWN_KEY),
        (f"{header}.{payload}.", Reason.BAD_SIGNATURE),
        (f"{_none(provider)}.{payload}.", Reason.WRONG_ALGORITHM),
        (provider.signed(key=stranger, header={"typ": "logout+jwt"}), Reason.MALFORMED_TOKEN),
        (provider.signed()[:-100], Reason.MALFORMED_TOKEN),
        (f"{header}.{payload}.a.b.c", Reason.MALFORMED_TOKEN),
    ]
    async with signing_in(section(provider)) as method:
        for token, reason in cases:
            assert (await refusal(method, token)).reason is reason
            await sign_in(method, "alice", provider.signed())


def _none(provider: Provider) -> str:
    return base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": provider.keys[0].kid}).encode()).decode()


async def test_the_claim_that_names_the_user(provider: Provider) -> None:
    by_mail = section(provider, user_claim="email", user_template="{user}@example.org", groups_claim=None)
    async with signing_in(by_mail) as method:
        assert (await sign_in(method, "alice", provider.signed())).groups == frozenset()
        for claims in (
            {"email": "alice@example.com"},
            {"email": "Alice@example.org"},
            {"email": "alice@example.org\n"},
            {"email": ["alice@example.org"]},
            {"email": None},
            {"email_verified": False},
            {"email_verified": "true"},
        ):
            assert (await refusal(method, provider.signed(**claims))).reason is Reason.ANOTHER_USER, claims
        # the template is no pattern, and what was typed is no template
        assert (await refusal(method, provider.signed(), "{user}")).reason is Reason.ANOTHER_USER
    async with signing_in(section(provider, groups_claim="roles")) as method:
        assert (await sign_in(method, "alice", provider.signed(roles="ops"))).groups == {"ops"}
        assert (await sign_in(method, "alice", provider.signed(roles=["ops", 1, None, ""]))).groups == {"ops"}
        assert (await sign_in(method, "alice", provider.signed(roles={"ops": 1}))).groups == frozenset()


async def test_keys_that_change(servers_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = servers_folder / "oidc-rotating"
    folder.mkdir()
    with oidc_provider(folder) as provider:
        async with signing_in(section(provider)) as method:
            old = provider.signed()
            await sign_in(method, "alice", old)
            provider.rotate()
            # at most once a minute, whoever asks
            assert (await refusal(method, provider.signed())).reason is Reason.UNKNOWN_KEY
            monkeypatch.setattr(issuer, "REFRESH", 0.0)
            await sign_in(method, "alice", provider.signed())
            assert (await refusal(method, old)).reason is Reason.UNKNOWN_KEY
            provider.stop()
            await sign_in(method, "alice", provider.signed())  # verified here: an outage is not felt
            no = await refusal(method, provider.signed(key=new_key()))
            assert no.reason is Reason.SSO_UNAVAILABLE


async def test_neither_token_nor_password_is_logged(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with signing_in(section(provider, client_id=CLIENT, client_secret="hunter2")) as method:
        token = provider.signed()
        await sign_in(method, "alice", token)
        await refusal(method, token, "bob")
        assert "hunter2" not in repr(method._config)
    assert token not in caplog.text


INTROSPECTION = {"opaque_tokens": "introspection", "client_id": CLIENT, "client_secret": SECRET, "audience": (CLIENT,)}
USERINFO = {"opaque_tokens": "userinfo"}


async def test_opaque_tokens_that_the_provider_issues(provider: Provider) -> None:
    token = f"token:{provider.tokens('alice')['access_token']}"
    for how, options in (("oidc-introspection", INTROSPECTION), ("oidc-userinfo", USERINFO)):
        async with signing_in(section(provider, **options)) as method:
            identity = await sign_in(method, "alice", token)
            assert (identity.user, identity.method, identity.groups) == ("alice", how, {"developers", "app-web"})
            assert (identity.expires is not None) is (how == "oidc-introspection")
            assert (await refusal(method, token, "bob")).reason is Reason.ANOTHER_USER
            assert (await refusal(method, "token:made-up")).reason is Reason.TOKEN_REFUSED
            assert (await refusal(method, "token:a&token=b%00")).reason is Reason.TOKEN_REFUSED
    async with signing_in(section(provider, **{**INTROSPECTION, "audience": (AUDIENCE,)})) as method:
        assert (await refusal(method, token)).reason is Reason.WRONG_AUDIENCE
    async with signing_in(section(provider, **{**INTROSPECTION, "client_secret": "hunter2"})) as method:
        no = await refusal(method, token)  # our fault, not the user's
        assert no.reason is Reason.SSO_UNAVAILABLE
        assert "client_secret" in no.log_text
        assert "hunter2" not in no.log_text
    async with signing_in(section(provider)) as method:
        opaque = token_in(token)
        assert opaque is not None
        assert await method.token("alice", opaque, IP) is None


# ---- with one that misbehaves ----


def well_known(server: HttpServer, **changes: Any) -> Callable[[Request], None]:
    metadata = {"issuer": server.url, "jwks_uri": f"{server.url}/jwks", **changes}
    return lambda request: request.json(metadata)


@pytest.fixture
def key() -> Key:
    return new_key()


@pytest.fixture
def hostile(key: Key) -> Iterator[HttpServer]:
    """An issuer that is well, until the test changes its routes: what it then does no real provider can be made to."""
    with http_server() as server:
        server.routes["/.well-known/openid-configuration"] = well_known(server)
        server.routes["/jwks"] = lambda request: request.json({"keys": [key.as_dict(private=False)]})
        yield server


def token_of(server: HttpServer, key: Key, **more: Any) -> str:
    claims = {"iss": server.url, "aud": AUDIENCE, "exp": int(time.time()) + 600, **ACCOUNTS["alice"], **more}
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)


def of(server: HttpServer, **options: Any) -> Section:
    return Section.model_validate({"issuer": server.url, "audience": (AUDIENCE,), "timeout": 1, **options})


BAD: dict[str, Callable[[Request], None]] = {
    "60 s": lambda request: request.stall(60),
    "50 MB": lambda request: request.raw(b'{"keys": [' + b" " * 50_000_000),
    "redirect": lambda request: request.raw(b"", 302, Location="https://evil.example.org/jwks"),
    "no JSON": lambda request: request.raw(b"<html>"),
    "no keys": lambda request: request.json({"keys": []}),
    "a secret key": lambda request: request.json({"keys": [OctKey.generate_key(256).as_dict()]}),
    "500": lambda request: request.json({}, 500),
    "404": lambda request: request.json({}, 404),
}


@pytest.mark.parametrize("path", ["/jwks", "/.well-known/openid-configuration"])
@pytest.mark.parametrize("how", BAD)
async def test_a_provider_that_gives_no_answer_is_an_outage(hostile: HttpServer, key: Key, path: str, how: str) -> None:
    well = hostile.routes[path]
    async with signing_in(of(hostile)) as method:
        hostile.routes[path] = BAD[how]
        no = await refusal(method, token_of(hostile, key))
        assert no.reason is Reason.SSO_UNAVAILABLE
        assert hostile.url in no.log_text
        hostile.routes[path] = well
        await sign_in(method, "alice", token_of(hostile, key))


async def test_metadata_that_are_anothers(hostile: HttpServer, key: Key) -> None:
    for changes in (
        {"issuer": "https://evil.example.org"},
        {"issuer": f"{hostile.url}/"},
        {"jwks_uri": None},
        {"jwks_uri": "http://sso.example.org/jwks"},  # in clear, to the network
        {"jwks_uri": "file:///etc/passwd"},
    ):
        hostile.routes["/.well-known/openid-configuration"] = well_known(hostile, **changes)
        async with signing_in(of(hostile)) as method:
            assert (await refusal(method, token_of(hostile, key))).reason is Reason.SSO_UNAVAILABLE


async def test_one_fetch_for_all_and_none_for_made_up_keys(hostile: HttpServer, key: Key) -> None:
    async with signing_in(of(hostile)) as method:
        await asyncio.gather(*(sign_in(method, "alice", token_of(hostile, key)) for _ in range(20)))
        assert len(hostile.asked) == 2
        for _ in range(20):
            assert (await refusal(method, token_of(hostile, new_key()))).reason is Reason.UNKNOWN_KEY
        assert len(hostile.asked) == 2
        wrong = token_of(hostile, key, iss="https://evil.example.org")
        assert (await refusal(method, wrong)).reason is Reason.WRONG_ISSUER


async def test_old_keys_are_renewed_beside_and_not_trusted_for_ever(
    hostile: HttpServer, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with signing_in(of(hostile)) as method:
        await sign_in(method, "alice", token_of(hostile, key))
        hostile.routes["/jwks"] = BAD["60 s"]
        monkeypatch.setattr(issuer, "FRESH", 0.0)
        monkeypatch.setattr(issuer, "REFRESH", 0.0)
        start = time.monotonic()
        await sign_in(method, "alice", token_of(hostile, key))
        assert time.monotonic() - start < 0.9  # did not wait for it
        monkeypatch.setattr(issuer, "TRUSTED", 0.0)
        assert (await refusal(method, token_of(hostile, key))).reason is Reason.SSO_UNAVAILABLE


async def test_nobody_there_and_a_ca_file_without_certificates(key: Key, tmp_path: Any) -> None:
    nobody = HttpServer(free_port(), {})
    async with signing_in(of(nobody)) as method:
        assert (await refusal(method, token_of(nobody, key))).reason is Reason.SSO_UNAVAILABLE
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigError, match=r"auth\.oidc\.ca_file"):
        Oidc(of(nobody, ca_file=tmp_path / "ca.pem"))


async def test_a_client_that_leaves_while_the_provider_is_silent(hostile: HttpServer, key: Key) -> None:
    well = hostile.routes["/jwks"]
    async with signing_in(of(hostile, timeout=30)) as method:
        hostile.routes["/jwks"] = BAD["60 s"]
        waiting = asyncio.create_task(sign_in(method, "alice", token_of(hostile, key)))
        await asyncio.to_thread(wait_until, lambda: "/jwks" in hostile.paths(), "the provider is asked")
        waiting.cancel()
        await asyncio.wait({waiting})
        hostile.routes["/jwks"] = well
    # closed: the fetch that nobody waits for has ended too
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


ANSWERS: list[tuple[dict[str, Any], Reason | None]] = [
    ({"active": True, "client_id": "bastion"}, None),
    ({"active": True, "aud": ["a", "bastion"], "client_id": "another"}, None),
    ({"active": True, "aud": "another", "client_id": "bastion"}, Reason.WRONG_AUDIENCE),
    ({"active": True, "client_id": "another"}, Reason.WRONG_AUDIENCE),
    ({"active": True}, Reason.MALFORMED_TOKEN),
    ({"active": True, "client_id": "bastion", "iss": "https://evil.example.org"}, Reason.WRONG_ISSUER),
    ({"active": True, "client_id": "bastion", "exp": 1}, Reason.TOKEN_EXPIRED),
    ({"active": True, "client_id": "bastion", "nbf": 10**10}, Reason.TOKEN_NOT_YET_VALID),
    ({"active": True, "client_id": "bastion", "cnf": {}}, Reason.MALFORMED_TOKEN),
    ({"active": True, "client_id": "bastion", "preferred_username": "bob"}, Reason.ANOTHER_USER),
    ({"active": False, "client_id": "bastion"}, Reason.TOKEN_REFUSED),
    ({"active": "true", "client_id": "bastion"}, Reason.SSO_UNAVAILABLE),
    ({"active": 1, "client_id": "bastion"}, Reason.SSO_UNAVAILABLE),
    ({"client_id": "bastion"}, Reason.SSO_UNAVAILABLE),
]


@pytest.mark.parametrize(("answer", "reason"), ANSWERS, ids=str)
async def test_what_introspection_may_answer(
    hostile: HttpServer, answer: dict[str, Any], reason: Reason | None
) -> None:
    """Shapes that RFC 7662 allows, or does not, and that the real provider would not produce."""
    endpoint = {"introspection_endpoint": f"{hostile.url}/introspect"}
    post_only = {"introspection_endpoint_auth_methods_supported": ["client_secret_post"]}
    hostile.routes["/introspect"] = lambda request: request.json({"preferred_username": "alice", **answer})
    for more, where in (({}, 2), (post_only, 3)):
        hostile.routes["/.well-known/openid-configuration"] = well_known(hostile, **endpoint, **more)
        options = {**INTROSPECTION, "client_secret": "a:b c", "audience": ("bastion",)}
        async with signing_in(of(hostile, **options)) as method:
            if reason is None:
                await sign_in(method, "alice", "token:x")
            else:
                assert (await refusal(method, "token:x")).reason is reason
        secret = base64.b64encode(b"bastion:a%3Ab+c").decode() if where == 2 else "a:b c"
        assert secret in str(hostile.asked[-1][where])


@pytest.mark.parametrize("options", [INTROSPECTION, USERINFO], ids=["introspection", "userinfo"])
@pytest.mark.parametrize("how", BAD)
async def test_a_question_without_an_answer_is_an_outage(
    hostile: HttpServer, options: dict[str, Any], how: str
) -> None:
    endpoints = {"introspection_endpoint": f"{hostile.url}/ask", "userinfo_endpoint": f"{hostile.url}/ask"}
    hostile.routes["/.well-known/openid-configuration"] = well_known(hostile, **endpoints)
    hostile.routes["/ask"] = BAD[how]
    async with signing_in(of(hostile, **options)) as method:
        assert (await refusal(method, "token:x")).reason is Reason.SSO_UNAVAILABLE
    hostile.routes["/.well-known/openid-configuration"] = well_known(hostile)
    async with signing_in(of(hostile, **options)) as method:
        assert (await refusal(method, "token:x")).reason is Reason.SSO_UNAVAILABLE
