import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as jose
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter

from bastion.auth import jwt
from bastion.errors import Reason, Refusal

ISSUER, AUDIENCE = "https://sso.example.org", "bastion"
KEY = ECKey.generate_key("P-256", auto_kid=True)
OTHER = ECKey.generate_key("P-256", auto_kid=True)
RSA = RSAKey.generate_key(2048, auto_kid=True)
ED = OKPKey.generate_key("Ed25519", auto_kid=True)
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")


def public(*keys: Key) -> list[Key]:
    return jwt.public_keys({"keys": [key.as_dict(private=False) for key in keys]})


def token(key: Key = KEY, alg: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, **claims}
    made = {name: value for name, value in made.items() if value is not None}
    return jose.encode({"alg": alg, "kid": key.kid, **(header or {})}, made, key, algorithms=[alg])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def verified(text: str, *keys: Key, leeway: float = 30, algorithms: tuple[str, ...] = ALGORITHMS) -> dict[str, Any]:
    return jwt.verified(
        text, public(*(keys or (KEY,))), algorithms=algorithms, issuer=ISSUER, audience=(AUDIENCE,), leeway=leeway
    )


def refusal(text: str, *keys: Key, **how: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verified(text, *keys, **how)
    assert caught.value.log_text.isprintable()
    return caught.value


@pytest.mark.parametrize(("key", "alg"), [(KEY, "ES256"), (RSA, "RS256"), (RSA, "PS256"), (ED, "EdDSA")])
def test_what_is_signed_by_one_of_the_keys(key: Key, alg: str) -> None:
    assert verified(token(key, alg), OTHER, key)["sub"] == "alice"
    assert verified(token(key, alg, aud=["elsewhere", AUDIENCE]), key)["aud"] == ["elsewhere", AUDIENCE]
    assert refusal(token(key, alg), OTHER).reason is Reason.BAD_SIGNATURE


def test_what_was_tampered_with() -> None:
    header, payload, signature = token().split(".")
    changed = part({"iss": ISSUER, "aud": AUDIENCE, "sub": "root", "exp": time.time() + 600})
    _, _, another = token(sub="bob").split(".")
    for text in (
        f"{header}.{changed}.{signature}",
        f"{header}.{payload}.{another}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-8]}",
        f"{part({'alg': 'ES256', 'kid': KEY.kid, 'x': 1})}.{payload}.{signature}",
    ):
        assert refusal(text).reason is Reason.BAD_SIGNATURE


def test_no_signature_and_a_confused_key() -> None:
    _, payload, _ = token().split(".")
    assert refusal(f"{part({'alg': 'none'})}.{payload}.").reason is Reason.BAD_SIGNATURE
    # HMAC with what everybody knows, the public key, as its secret
    for known in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
        secret = OctKey.import_key(base64.urlsafe_b64encode(known).decode())
        forged = jose.encode(
            {"alg": "HS256", "kid": RSA.kid}, {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 9}, secret
        )
        assert refusal(forged, RSA).reason is Reason.BAD_SIGNATURE
    # a key that the token brings along, and one of another kind under the same id
    mine = token(OTHER, header={"jwk": OTHER.as_dict(private=False), "jku": "https://evil.example.org"})
    assert refusal(mine).reason is Reason.BAD_SIGNATURE
    assert refusal(token(RSA, "RS256"), KEY).reason is Reason.BAD_SIGNATURE
    assert refusal(token(), algorithms=("RS256",)).reason is Reason.BAD_SIGNATURE
    # an extension that has to be understood, and is not
    knows_more = JWSRegistry({"x": HeaderParameter("x", "int")}, algorithms=["ES256"])
    critical = {"alg": "ES256", "kid": KEY.kid, "crit": ["x"], "x": 1}
    assert refusal(jose.encode(critical, {}, KEY, registry=knows_more)).reason is Reason.BAD_SIGNATURE


def ahead(seconds: float) -> timedelta:
    """A time that is told from when the test runs, not from when it is collected."""
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": ahead(-60)}, Reason.TOKEN_EXPIRED),
        ({"exp": 0}, Reason.TOKEN_EXPIRED),
        ({"exp": None}, Reason.MALFORMED_TOKEN),
        ({"exp": "tomorrow"}, Reason.MALFORMED_TOKEN),
        ({"exp": True}, Reason.MALFORMED_TOKEN),
        ({"exp": float("nan")}, Reason.MALFORMED_TOKEN),
        ({"exp": float("inf")}, Reason.MALFORMED_TOKEN),
        ({"nbf": ahead(120)}, Reason.TOKEN_NOT_YET_VALID),
        ({"iat": ahead(120)}, Reason.TOKEN_NOT_YET_VALID),
        ({"nbf": "now"}, Reason.MALFORMED_TOKEN),
        ({"iss": f"{ISSUER}/"}, Reason.WRONG_ISSUER),
        ({"iss": [ISSUER]}, Reason.WRONG_ISSUER),
        ({"iss": None}, Reason.MALFORMED_TOKEN),
        ({"aud": "elsewhere\x1b[2J"}, Reason.WRONG_AUDIENCE),
        ({"aud": ["elsewhere"]}, Reason.WRONG_AUDIENCE),
        ({"aud": []}, Reason.WRONG_AUDIENCE),
        ({"aud": {AUDIENCE: 1}}, Reason.WRONG_AUDIENCE),
        ({"aud": None}, Reason.MALFORMED_TOKEN),
        ({"cnf": {"jkt": "x"}}, Reason.MALFORMED_TOKEN),
    ],
    ids=str,
)
def test_claims_that_are_not_good(claims: dict[str, Any], reason: Reason) -> None:
    now = time.time()
    of_now = {name: now + at.total_seconds() if isinstance(at, timedelta) else at for name, at in claims.items()}
    assert refusal(token(**of_now)).reason is reason


def test_clocks_that_differ() -> None:
    """A minute is more than the leeway; the log says that a clock may be wrong."""
    assert verified(token(exp=int(time.time()) - 20, iat=int(time.time()) + 20))
    soon = int(time.time()) + 60
    no = refusal(token(iat=soon, nbf=soon))
    assert no.reason is Reason.TOKEN_NOT_YET_VALID
    assert "clock" in no.log_text
    assert refusal(token(exp=int(time.time()) - 60)).reason is Reason.TOKEN_EXPIRED
    assert verified(token(iat=soon), leeway=90)


def test_keys_that_are_of_no_use() -> None:
    weak = {"kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDpre", "e": "AQAB"}  # fmt: skip  # noqa: E501
    good = KEY.as_dict(private=False)
    useless = [
        "text",
        {},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": ["RSA"]},
        {"kty": "oct", "k": "c2VjcmV0"},
        weak,
        OTHER.as_dict(private=True),
        {**OTHER.as_dict(private=False), "use": "enc"},
    ]
    assert [key.kid for key in jwt.public_keys({"keys": [*useless, good]})] == [KEY.kid]
    for nothing in ({}, {"keys": None}, {"keys": {}}, {"keys": useless}):
        assert jwt.public_keys(nothing) == []


def test_the_key_of_a_token() -> None:
    keys = public(KEY, OTHER, RSA)
    assert jwt.candidates(jwt.Unverified(token()), keys) == [keys[0]]
    assert jwt.candidates(jwt.Unverified(f"{part({'alg': 'ES256'})}.{part({})}."), keys) == keys[:2]
    assert jwt.candidates(jwt.Unverified(token(header={"kid": "nobody's"})), keys) == []
    for alg in (None, "none", 1, ["ES256"]):
        unverified = jwt.Unverified(f"{part({'alg': alg})}.{part({})}.")
        assert jwt.candidates(unverified, keys) == []


@given(
    st.lists(st.one_of(st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()), st.text()), max_size=5)
)
def test_any_text_is_a_refusal(parts: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        jwt.Unverified(".".join(parts))
    assert caught.value.reason is Reason.MALFORMED_TOKEN


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text()))))
def test_any_set_of_keys_is_read(jwks: dict[str, object]) -> None:
    jwt.public_keys({"keys": [jwks, {"kty": "RSA", **jwks}, {"kty": "EC", **jwks}]})


def test_deep_and_long_ones() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 20_000).decode()
    with pytest.raises(Refusal):
        jwt.Unverified(f"{part({'alg': 'ES256'})}.{deep}.")
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    assert refusal(f"{part({'alg': 'ES256', 'x': nested})}.{part({})}.AA").reason is Reason.BAD_SIGNATURE


def test_when_it_ends() -> None:
    assert jwt.expiry({"exp": 0.5}) == datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert jwt.expiry({}) is None
    for wrong in (10**400, 1e300, float("nan"), "1", True):
        with pytest.raises(Refusal):
            jwt.expiry({"exp": wrong})
