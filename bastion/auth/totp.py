"""One-time codes (RFC 6238) as a second factor: secrets that are kept encrypted, and each code once."""

import base64
import binascii
import dataclasses
import hmac
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastion.auth.refusals import unavailable
from bastion.config import Totp as TotpSection
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
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
                file.flush()
                os.fsync(descriptor)
            os.link(unfinished, path)  # never over a key that is there
        finally:
            Path(unfinished).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError([f"{path}: can not be made: {error.strerror}"]) from None
    return True


def load_key(path: Path) -> bytes:
    """Raises ConfigError."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError([f"auth.totp.key: {path} has mode {mode:04o}; mend it with: chmod 600 {path}"])
            key = base64.b64decode(file.read(1024).strip(), validate=True)
    except FileNotFoundError:
        raise ConfigError([f"auth.totp.key: {path} does not exist; make it with: bastion keys init"]) from None
    except OSError as error:
        raise ConfigError([f"auth.totp.key: {path} can not be read: {error.strerror}"]) from None
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise ConfigError([f"auth.totp.key: {path} is no key; bastion keys init makes one, once it is out of the way"])
    return key
