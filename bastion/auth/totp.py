"""One-time codes (RFC 6238) as a second factor: secrets that are kept encrypted, and each code once."""

import base64
import binascii
import contextlib
import dataclasses
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastion.auth.refusals import unavailable
from bastion.config import Totp as TotpSection
from bastion.config import key_file
from bastion.errors import ConfigError, Reason, Refusal, printable
from bastion.model import Identity

STEP = 30  # seconds
WINDOW = 1  # a code counts one step before and after its own: a slow hand, a clock that is a little wrong
RECOGNISED = 20  # steps before and after which the log says how wrong the clock is
_NONCE = 12  # bytes


class Enrolments(Protocol):
    """Where secrets and used codes are kept. Raises Unavailable."""

    async def newest(self, user: str) -> tuple[int, bytes] | None: ...

    async def use(self, enrolment: int, step: int) -> bool: ...


class Totp:
    """Who has to give a code, and whether it is right."""

    def __init__(self, config: TotpSection, enrolments: Enrolments, clock: Callable[[], float] = time.time) -> None:
        """Raises ConfigError where the key is not right."""
        self._ask = config.ask
        self._key = load_key(config.key)
        self._enrolments = enrolments
        self._clock = clock

    async def is_needed(self, identity: Identity, rules_want: Callable[[], Awaitable[bool]]) -> bool:
        """Raises Unavailable, and Refusal where everyone needs a code and this user has nothing that makes them."""
        if self._ask == "by_rule" and not await rules_want():
            return False
        enrolled = await self._enrolments.newest(identity.user) is not None
        if not enrolled and self._ask == "everyone":
            text = "A second factor is needed here, and you have none yet: ask the administrators to enrol you."
            raise Refusal(Reason.SECOND_FACTOR_NEEDED, text, f"{identity.user}: not enrolled (totp)")
        return enrolled

    async def check(self, identity: Identity, code: str) -> Identity:
        """The identity with its second factor. Raises Refusal, whose text the user may read, and Unavailable."""
        user = identity.user
        newest = await self._enrolments.newest(user)
        if newest is None:
            raise _wrong(f"{user}: no longer enrolled")
        enrolment, secret_as_kept = newest
        try:
            secret = decrypted(self._key, user, secret_as_kept)
        except ValueError as error:
            raise unavailable(f"{user}: the secret of their second factor: {error}") from None
        digits = "".join(code.split())
        now = int(self._clock()) // STEP
        away = _steps_away(secret, digits, now)
        if away is None:
            raise _wrong(f"{user}: wrong code after the right {identity.method}")
        if abs(away) > WINDOW:
            raise _wrong(f"{user}: a code of {away * STEP:+d} s, after the right {identity.method}: a wrong clock?")
        if not await self._enrolments.use(enrolment, now + away):
            text = "This code was used already. Wait for the next one."
            raise Refusal(Reason.CODE_REPLAYED, text, f"{user}: a code that was used already")
        return dataclasses.replace(identity, second_factor="totp")


def _wrong(log_text: str) -> Refusal:
    text = "The code is wrong. If it is the one that is shown: is the clock of your device right?"
    return Refusal(Reason.WRONG_CODE, text, printable(log_text))


def _steps_away(secret: str, digits: str, now: int) -> int | None:
    """How many steps from `now` this is the code; the nearest, and all are compared: time tells nothing."""
    if len(digits) != 6 or not digits.isascii() or not digits.isdigit():
        return None
    totp = pyotp.TOTP(secret)
    fitting = [
        step
        for step in range(-RECOGNISED, RECOGNISED + 1)
        if hmac.compare_digest(totp.at(max(now + step, 0) * STEP), digits)
    ]
    return min(fitting, key=abs, default=None)


# ---- the secrets, and the key that they are encrypted with ----


def new_secret() -> str:
    """160 bits in base32, as RFC 4226 section 4 wants."""
    return pyotp.random_base32()


def otpauth_uri(secret: str, user: str, issuer: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name=issuer)


def encrypted(key: bytes, user: str, secret: str) -> bytes:
    """AES-256-GCM. It is this user's: moved to another's row it can not be read."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, secret.encode(), user.encode())


def decrypted(key: bytes, user: str, data: bytes) -> str:
    """Raises ValueError."""
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], user.encode()).decode()
    except (InvalidTag, ValueError):
        raise ValueError("encrypted with another key than auth.totp.key, or changed") from None


def make_key(path: Path) -> bool:
    """Make the key file (mode 0600); False when there is something already. Raises ConfigError."""
    return key_file.create(path, base64.b64encode(secrets.token_bytes(32)) + b"\n")


def load_key(path: Path) -> bytes:
    """Raises ConfigError."""
    try:
        content = key_file.read(path)
    except ValueError as error:
        raise ConfigError([f"auth.totp.key: {path} {error}"]) from None
    key = b""
    with contextlib.suppress(binascii.Error):
        key = base64.b64decode(content.strip(), validate=True)
    if len(key) != 32:
        raise ConfigError([f"auth.totp.key: {path} is no key; bastion keys init makes one, once it is out of the way"])
    return key
