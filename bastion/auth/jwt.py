"""A JWT (RFC 7519) against its issuer's keys. Pure; nothing that it says counts before its signature is verified."""

import base64
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
    SecurityWarning,
)
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from bastion.auth.refusals import refused
from bastion.errors import Reason, printable

# RFC 9864 has another name for it, but providers go on to use this one.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)

MIN_RSA_BITS = 2048
MAX_KEYS = 100
# Tokens that are no tokens to sign in with, such as a logout token, have another type (RFC 8725 section 3.11).
TYPES = ("", "jwt", "at+jwt", "application/at+jwt", "id+jwt")
_KINDS = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


class _Registry(JWSRegistry):
    max_header_length = 8192  # some have a chain of certificates in it


class Unverified:
    """What a token says of itself, to find the key that it has to be verified with."""

    def __init__(self, token: str) -> None:
        """Raises Refusal MALFORMED_TOKEN."""
        parts = token.split(".")
        if len(parts) == 5:
            raise refused(Reason.MALFORMED_TOKEN, "the token is encrypted (JWE); a signed one (JWS) is right")
        if len(parts) != 3:
            raise refused(Reason.MALFORMED_TOKEN, "the token is no JWT, or only a piece of one")
        header, payload = _object(parts[0]), _object(parts[1])
        self.algorithm = header.get("alg")
        self.key_id = header.get("kid")
        self.type = header.get("typ")
        self.issuer = payload.get("iss")


def _object(part: str) -> dict[str, Any]:
    try:
        parsed = orjson.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise refused(Reason.MALFORMED_TOKEN, "the token is no JWT: its parts are no JSON objects in base64url")
    return parsed


def public_keys(jwks: Mapping[str, object]) -> list[Key]:
    """The keys of a JWK set (RFC 7517) that can verify a signature; what is of no use, or no good, is left out."""
    listed = jwks.get("keys")
    keys = []
    for data in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        # a symmetric key is no public one, and one that is published with its private part is anybody's
        if not isinstance(data, dict) or data.get("kty") == "oct" or "d" in data or data.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(data)
            _ = key.public_key  # a point beside the curve is found here
        except (JoseError, ValueError, TypeError, ArithmeticError):
            continue
        if not isinstance(key, RSAKey) or key.public_key.key_size >= MIN_RSA_BITS:
            keys.append(key)
    return keys


def candidates(unverified: Unverified, keys: Sequence[Key]) -> list[Key]:
    """The keys that may have signed the token: by its key id or, without one, by its algorithm."""
    if unverified.key_id is not None:
        return [key for key in keys if key.kid == unverified.key_id]
    kind = _KINDS.get(str(unverified.algorithm)[:2])
    return [key for key in keys if kind is not None and isinstance(key, kind)]


def verified(
    token: str,
    keys: Sequence[Key],
    *,
    algorithms: Sequence[str],
    issuer: str,
    audience: Sequence[str],
    leeway: float,
) -> dict[str, Any]:
    """The claims of a token that one of `keys` has signed; raises Refusal with the reason that it is not good."""
    claims = _signed_by_one_of(token, keys, algorithms)
    check(claims, issuer=issuer, audience=audience, leeway=leeway)
    return claims


def check(
    claims: dict[str, Any], *, issuer: str, audience: Sequence[str], leeway: float, must_end: bool = True
) -> None:
    """Is a token with these claims from `issuer`, for one of `audience`, and good now? Raises Refusal."""
    now = time.time()
    rules = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=int(leeway),
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "values": list(audience)},
        exp={"essential": must_end},
    )
    try:
        rules.validate(claims)
    except ExpiredTokenError:
        raise refused(Reason.TOKEN_EXPIRED, f"the token ended {now - claims['exp']:.0f} s ago") from None
    except InvalidClaimError as error:
        raise _wrong_claim(error.claim, claims, now) from None
    except MissingClaimError as error:
        raise refused(Reason.MALFORMED_TOKEN, f"the token has no claim {printable(str(error.claim))}") from None
    if "cnf" in claims:
        raise refused(Reason.MALFORMED_TOKEN, "the token is bound to a key (cnf) that can not be shown over SSH")


def expiry(claims: Mapping[str, object]) -> datetime | None:
    """`exp` as a time; None without one. Raises Refusal MALFORMED_TOKEN."""
    value = claims.get("exp")
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise refused(Reason.MALFORMED_TOKEN, f"the claim exp is no time: {printable(repr(value)[:40])}")


def _signed_by_one_of(token: str, keys: Sequence[Key], algorithms: Sequence[str]) -> dict[str, Any]:
    registry = _Registry(algorithms=list(algorithms), strict_check_header=False)
    why = "no key"
    for key in keys:
        try:
            return jwt.decode(token, key, algorithms=list(algorithms), registry=registry).claims
        except BadSignatureError:
            why = f"not signed by the key {printable(str(key.kid)[:80])}"
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            why = printable(f"{type(error).__name__}: {error}"[:200])
    raise refused(Reason.BAD_SIGNATURE, f"the token's signature does not hold: {why}")


def _wrong_claim(name: str | None, claims: Mapping[str, Any], now: float) -> Exception:
    value = claims.get(name or "")
    shown = printable(repr(value)[:200])
    if name in ("nbf", "iat") and isinstance(value, int | float):
        text = f"the token is valid in {value - now:.0f} s only ({name}): is a clock wrong?"
        return refused(Reason.TOKEN_NOT_YET_VALID, text)
    reasons = {"iss": Reason.WRONG_ISSUER, "aud": Reason.WRONG_AUDIENCE}
    return refused(reasons.get(name or "", Reason.MALFORMED_TOKEN), f"the token's claim {name} is {shown}")
