import asyncio
import base64
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import argon2
import pytest
from pydantic import SecretStr

from bastion.auth import authenticator, local
from bastion.auth.authenticator import Authenticator
from bastion.auth.refusals import REFUSED, TOLD, UNAVAILABLE
from bastion.auth.throttle import Throttle
from bastion.auth.users_file import HASHER, User, changing_users
from bastion.config import Auth, Ldap, LocalUsers, Oidc, Penalties
from bastion.errors import Reason, Refusal, Unavailable
from tests.auth.test_ldap import Starter
from tests.auth.test_local import KEY, LINE, OTHER
from tests.auth.test_user_name import HOSTILE
from tests.servers.http import http_server
from tests.servers.oidc import CLIENT, SECRET, Provider
from tests.servers.process import free_port
from tests.servers.slapd import PASSWORD, PEOPLE, READER_DN, Slapd

IP = "192.0.2.1"


@pytest.fixture
def users(tmp_path: Path) -> LocalUsers:
    path = tmp_path / "users.yaml"
    with changing_users(path) as users:
        users["local"] = User(password=HASHER.hash(PASSWORD), groups=["here"], authorized_keys=[LINE])
        users["bob"] = User(password=HASHER.hash("bob's other"), disabled=True)  # in the directory too
    return LocalUsers(file=path)


def ldap(directory: Slapd, **options: object) -> Ldap:
    how = {"search_base": PEOPLE, "bind_dn": READER_DN, "bind_password": PASSWORD, "ca_file": directory.ca_file}
    return Ldap.model_validate({"servers": [directory.tls_url], **how, **options})


@pytest.fixture
async def both(users: LocalUsers, directory: Slapd) -> AsyncIterator[Authenticator]:
    made = Authenticator(Auth(local=users, ldap=ldap(directory)), patient())
    yield made
    await made.close()


@pytest.fixture
async def outage(users: LocalUsers, directory: Slapd) -> AsyncIterator[Authenticator]:
    made = Authenticator(
        Auth(local=users, ldap=ldap(directory, servers=[f"ldaps://127.0.0.1:{free_port()}"])), patient()
    )
    yield made
    await made.close()


def patient() -> Throttle:
    """By a clock that runs so fast that every failure is long ago: what is tested here is tested again and again."""
    return Throttle(Penalties(), (1e6 * n for n in itertools.count()).__next__)


async def reason(who: Authenticator, user: str, how: str | bytes, key_type: str = "ssh-ed25519") -> Reason:
    asking = who.password(user, how, IP) if isinstance(how, str) else who.public_key(user, key_type, how, IP)
    with pytest.raises(Refusal) as caught:
        await asking
    no = TOLD.get(caught.value.reason, REFUSED)
    assert caught.value.user_text == (UNAVAILABLE if isinstance(caught.value, Unavailable) else no)
    assert caught.value.log_text.isprintable()
    return caught.value.reason


async def test_the_first_method_that_knows_the_user_decides(both: Authenticator) -> None:
    assert (await both.password("local", PASSWORD, IP)).method == "local-password"
    assert (await both.password("alice", PASSWORD, IP)).method == "ldap"
    assert (await both.public_key("local", "ssh-ed25519", KEY, IP)).method == "local-publickey"
    assert await reason(both, "bob", "bob's own") == Reason.WRONG_CREDENTIALS  # right for LDAP
    assert await reason(both, "bob", "bob's other") == Reason.USER_DISABLED
    assert await reason(both, "local", "wrong") == Reason.WRONG_CREDENTIALS
    assert await reason(both, "alice", "wrong") == Reason.WRONG_CREDENTIALS
    assert await reason(both, "nobody", "wrong") == Reason.UNKNOWN_USER
    assert await reason(both, "local", OTHER) == Reason.KEY_NOT_ALLOWED
    assert await reason(both, "alice", KEY) == Reason.UNKNOWN_USER


async def test_an_outage_is_neither_a_wrong_password_nor_an_open_door(
    outage: Authenticator, both: Authenticator, users: LocalUsers
) -> None:
    assert (await outage.password("local", PASSWORD, IP)).user == "local"
    assert await reason(outage, "local", "wrong") == Reason.WRONG_CREDENTIALS
    assert await reason(outage, "alice", PASSWORD) == Reason.AUTH_UNAVAILABLE
    assert await reason(outage, "nobody", PASSWORD) == Reason.AUTH_UNAVAILABLE
    # the other way round: alice might be disabled in the file that can not be read
    users.file.unlink()
    assert await reason(both, "alice", PASSWORD) == Reason.AUTH_UNAVAILABLE
    assert await reason(both, "local", KEY) == Reason.AUTH_UNAVAILABLE


@pytest.mark.parametrize("user", [*HOSTILE, "a" * 10_000], ids=lambda user: ascii(user[:20]))
async def test_hostile_names_are_refused_before_anything_is_asked(outage: Authenticator, user: str) -> None:
    assert await reason(outage, user, PASSWORD) == Reason.MALFORMED_USER_NAME
    assert await reason(outage, user, KEY) == Reason.MALFORMED_USER_NAME


async def test_hostile_passwords_and_keys(outage: Authenticator) -> None:
    for password in ("", "\u00ad"):
        assert await reason(outage, "alice", password) == Reason.EMPTY_PASSWORD
    for password in (PASSWORD + "\0", "\0", "\udce4", "x" * 100_000):
        assert await reason(outage, "alice", password) == Reason.WRONG_CREDENTIALS
    for blob in (b"", b"\0" * 100_000, KEY + b"\0", KEY[:-1]):
        assert await reason(outage, "local", blob) == Reason.KEY_NOT_ALLOWED
    assert await reason(outage, "local", KEY, key_type="\x1b\udce4" * 10_000) == Reason.KEY_NOT_ALLOWED


async def test_the_next_right_sign_in_works(both: Authenticator) -> None:
    await asyncio.gather(*(reason(both, user, "wrong") for user in ["nobody", "alice", "local", "*", ""] * 4))
    assert (await both.password("alice", PASSWORD, IP)).user == "alice"


# ---- the same time ----


async def times(who: Authenticator, tries: int, *users: str) -> list[float]:
    """The median of the seconds that a wrong password takes, for each of `users`, interleaved."""
    taken: dict[str, list[float]] = {user: [] for user in users}
    for _ in range(tries):
        for user in users:
            start = time.perf_counter()
            await reason(who, user, "wrong")
            taken[user].append(time.perf_counter() - start)
    return [statistics.median(taken[user]) for user in users]


@pytest.fixture
def no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the least time of a refusal, which would hide what is measured here."""
    monkeypatch.setattr(authenticator, "PASSWORD_FAILURE", 1e-9)
    monkeypatch.setattr(authenticator.asyncio, "sleep", _at_once)


async def _at_once(seconds: float) -> None:
    pass


@pytest.fixture
def cheap(users: LocalUsers, monkeypatch: pytest.MonkeyPatch) -> LocalUsers:
    """A hash of about 5 ms, so that many tries are quick: still far more than all the rest."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)
    monkeypatch.setattr(local, "HASHER", hasher)
    with changing_users(users.file) as known:
        known["local"] = User(password=hasher.hash(PASSWORD))
        known["keys"] = User(authorized_keys=[LINE])
    return users


@pytest.mark.alone
@pytest.mark.usefixtures("no_floor")
async def test_as_much_work_for_an_unknown_user_with_local_users(cheap: LocalUsers) -> None:
    who = Authenticator(Auth(local=cheap), patient())
    known, keys_only, unknown = await times(who, 200, "local", "keys", "nobody")
    await who.close()
    assert 0.6 < unknown / known < 1.6
    assert 0.6 < keys_only / known < 1.6


@pytest.mark.alone
@pytest.mark.usefixtures("no_floor")
@pytest.mark.parametrize("mode", [{}, {"search_base": None, "bind_template": f"uid={{user}},{PEOPLE}"}])
async def test_as_much_work_for_an_unknown_user_with_ldap(directory: Slapd, mode: dict[str, object]) -> None:
    without = {"bind_dn": None, "bind_password": None} if mode else {}
    who = Authenticator(Auth(ldap=ldap(directory, **mode, **without)), patient())
    known, unknown = await times(who, 200, "alice", "nobody")
    await who.close()
    assert 0.6 < unknown / known < 1.6


@pytest.mark.alone
@pytest.mark.usefixtures("no_floor")
async def test_as_much_work_with_both(cheap: LocalUsers, directory: Slapd) -> None:
    who = Authenticator(Auth(local=cheap, ldap=ldap(directory)), patient())
    here, there, unknown = await times(who, 200, "local", "alice", "nobody")
    await who.close()
    assert 0.6 < unknown / here < 1.6
    assert 0.6 < unknown / there < 1.6


async def test_a_refusal_takes_its_least_time(both: Authenticator) -> None:
    """Also what needs no work at all; and what lets in does not wait."""
    for user, how, least in [
        ("alice", "wrong", authenticator.PASSWORD_FAILURE),
        ("nobody", "wrong", authenticator.PASSWORD_FAILURE),
        ("../", "wrong", authenticator.PASSWORD_FAILURE),
        ("local", "", authenticator.PASSWORD_FAILURE),
        ("local", OTHER, authenticator.KEY_FAILURE),
        ("nobody", OTHER, authenticator.KEY_FAILURE),
    ]:
        start = time.monotonic()
        await reason(both, user, how)  # type: ignore[arg-type]
        assert time.monotonic() - start >= least * 0.99


async def test_what_took_longer_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 0.0, []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def sleep(seconds: float) -> None:
        slept.append(now + seconds)

    monkeypatch.setattr(authenticator.asyncio, "sleep", sleep)

    async def refused_after(seconds: float) -> None:
        nonlocal now
        now = 0.0
        async with authenticator._no_sooner_than(0.25):
            now = seconds
            raise Refusal(Reason.WRONG_CREDENTIALS, "no")

    for seconds in (0.0, 0.1, 0.25, 0.26, 0.5, 0.51, 3.0, 4.5, 130.0):
        with pytest.raises(Refusal):
            await refused_after(seconds)
    assert slept == [0.25, 0.25, 0.25, 0.5, 0.5, 1.0, 4.0, 8.0, 132.0]


# ---- tokens in the password's place ----


@pytest.fixture
async def all_methods(users: LocalUsers, directory: Slapd, provider: Provider) -> AsyncIterator[Authenticator]:
    oidc = Oidc(
        issuer=provider.issuer,
        audience=(CLIENT,),
        ca_file=provider.ca_file,
        client_id=CLIENT,
        client_secret=SecretStr(SECRET),
        opaque_tokens="introspection",
    )
    made = Authenticator(Auth(local=users, ldap=ldap(directory), oidc=oidc), patient())
    yield made
    await made.close()


async def test_passwords_and_tokens_beside_each_other(all_methods: Authenticator, provider: Provider) -> None:
    tokens = provider.tokens("alice")
    for password, method in (
        (PASSWORD, "ldap"),
        (tokens["id_token"], "oidc-token"),
        (f"token:{tokens['access_token']}", "oidc-introspection"),
    ):
        assert (await all_methods.password("alice", password, IP)).method == method
    assert (
        await reason(all_methods, "alice", tokens["access_token"]) == Reason.WRONG_CREDENTIALS
    )  # taken for a password
    assert await reason(all_methods, "bob", tokens["id_token"]) == Reason.ANOTHER_USER
    # bob's token is his, and he is disabled in the users file
    assert await reason(all_methods, "bob", provider.tokens("bob")["id_token"]) == Reason.USER_DISABLED
    assert await reason(all_methods, "nobody", tokens["id_token"]) == Reason.ANOTHER_USER
    assert await reason(all_methods, "alice", "token:") == Reason.MALFORMED_TOKEN


async def test_a_password_is_not_sent_to_the_provider_nor_a_token_to_the_directory(misbehaving: Starter) -> None:
    """Whatever is wrong with the token: each server would notice a single byte."""
    slapd = misbehaving(lambda connection: None)
    section = Ldap(servers=(f"ldap://127.0.0.1:{slapd.port}",), allow_cleartext=True, search_base="dc=example")
    with http_server() as sso:
        oidc = Oidc(
            issuer=sso.url,
            audience=("bastion",),
            client_id="bastion",
            client_secret=SecretStr("secret"),
            opaque_tokens="introspection",
        )
        who = Authenticator(Auth(ldap=section, oidc=oidc), patient())
        header = base64.urlsafe_b64encode(b'{"alg": "ES256"}').decode()
        for token in (f"{header}.e30.AA", f"{header}.", f"{header}.\0", f"token:{'t' * 70_000}", "eyJ" + "a" * 1020):
            await reason(who, "alice", token)
        assert await reason(who, "alice", "token:opaque") == Reason.SSO_UNAVAILABLE
        assert slapd.connections == 0
        asked = len(sso.asked)
        assert asked > 0
        for password in ("correct horse", "eyJones.smith", "a.b.c", "Token:t"):
            assert await reason(who, "alice", password) == Reason.AUTH_UNAVAILABLE
        assert slapd.connections > 0
        assert len(sso.asked) == asked
        await who.close()
    # without any method for it, a token is not taken for a password either
    who = Authenticator(Auth(ldap=section), patient())
    before = slapd.connections
    for token in ("token:opaque", f"{header}.e30.AA"):
        assert await reason(who, "alice", token) == Reason.UNKNOWN_USER
    assert slapd.connections == before
    await who.close()


async def test_a_token_that_openssh_has_cut_short(all_methods: Authenticator, provider: Provider) -> None:
    long = provider.signed(aud=CLIENT, more="x" * 2000)
    assert (await all_methods.password("alice", long, IP)).user == "alice"
    with pytest.raises(Refusal, match="cut short") as caught:
        await all_methods.password("alice", long[:1023], IP)
    assert caught.value.reason is Reason.MALFORMED_TOKEN


async def test_a_refused_token_takes_its_least_time(all_methods: Authenticator, provider: Provider) -> None:
    for token in ("token:", "token:made-up", provider.signed(aud="elsewhere"), provider.signed(aud=CLIENT, exp=1)):
        start = time.monotonic()
        await reason(all_methods, "alice", token)
        assert time.monotonic() - start >= authenticator.PASSWORD_FAILURE * 0.99
