from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest
from pydantic import SecretStr

from bastion.audit.database import create_engine, upgrade
from bastion.audit.enrolments import Enrolments
from bastion.auth.totp import Totp, decrypted, encrypted, load_key, make_key, new_secret, otpauth_uri
from bastion.config import Database
from bastion.config import Totp as Section
from bastion.errors import ConfigError, Reason, Refusal, Unavailable
from bastion.model import Identity

ALICE = Identity("alice", "local-publickey", frozenset({"developers"}))
NOW = 1_800_000_015.0  # in the middle of a step


class Device:
    """The app on somebody's phone."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)

    def code(self, seconds: float = 0) -> str:
        """What it shows, where its clock is `seconds` ahead."""
        return self._totp.at(int(NOW + seconds))


@pytest.fixture
async def enrolments(tmp_path: Path) -> AsyncIterator[Enrolments]:
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/b.db"))
    await upgrade(config)
    engine = create_engine(config)
    yield Enrolments(engine)
    await engine.dispose()


@pytest.fixture
def section(tmp_path: Path) -> Section:
    assert make_key(tmp_path / "keys/totp_key")
    return Section(key=tmp_path / "keys/totp_key")


@pytest.fixture
def totp(section: Section, enrolments: Enrolments) -> Totp:
    return Totp(section, enrolments, clock=lambda: NOW)


@pytest.fixture
async def device(section: Section, enrolments: Enrolments) -> Device:
    secret = new_secret()
    await enrolments.enrol("alice", encrypted(load_key(section.key), "alice", secret))
    return Device(secret)


async def refusal(totp: Totp, code: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await totp.check(ALICE, code)
    assert caught.value.log_text.isprintable()
    return caught.value


@pytest.mark.parametrize("seconds", [0, -30, 30])
async def test_a_code_and_those_beside_it(totp: Totp, device: Device, seconds: int) -> None:
    identity = await totp.check(ALICE, device.code(seconds))
    assert (identity.user, identity.groups, identity.second_factor) == ("alice", ALICE.groups, "totp")


async def test_as_it_is_typed(totp: Totp, device: Device) -> None:
    code = device.code()
    assert (await totp.check(ALICE, f" {code[:3]} {code[3:]}\t")).second_factor == "totp"


@pytest.mark.parametrize("seconds", [-60, 60])
async def test_a_clock_that_is_60_s_off(totp: Totp, device: Device, seconds: int) -> None:
    no = await refusal(totp, device.code(seconds))
    assert no.reason == Reason.WRONG_CODE
    assert "is the clock of your device right?" in no.user_text
    assert f"a code of {seconds:+d} s" in no.log_text
    assert (await totp.check(ALICE, device.code())).second_factor == "totp"


async def test_a_code_counts_once(totp: Totp, device: Device) -> None:
    await totp.check(ALICE, device.code())
    no = await refusal(totp, device.code())
    assert (no.reason, no.user_text) == (Reason.CODE_REPLAYED, "This code was used already. Wait for the next one.")
    assert (await totp.check(ALICE, device.code(30))).second_factor == "totp"


HOSTILE = [
    "",
    "0",
    "12345",
    "1234567",
    "-12345",
    "+12345",
    "\uff11" * 6,
    "1e5000",
    "000000\0",
    "x" * 100_000,
    "\x1b[2J",
]


@pytest.mark.parametrize("code", HOSTILE, ids=ascii)
async def test_what_is_no_code(totp: Totp, device: Device, code: str) -> None:
    assert (await refusal(totp, code)).reason == Reason.WRONG_CODE


async def test_a_secret_is_read_by_its_user_only_and_with_its_key_only(
    totp: Totp, section: Section, enrolments: Enrolments, device: Device
) -> None:
    """Whoever can write to the database gives alice another's secret, or one of their own."""
    key = load_key(section.key)
    for secret in (
        encrypted(key, "bob", new_secret()),
        encrypted(b"k" * 32, "alice", new_secret()),
        b"",
        b"JBSWY3DPEHPK3PXP",
    ):
        await enrolments.enrol("alice", secret)
        with pytest.raises(Unavailable, match=r"alice: the secret .* encrypted with another key"):
            await totp.check(ALICE, device.code())
    secret = new_secret()
    once, again = encrypted(key, "alice", secret), encrypted(key, "alice", secret)
    assert once != again
    assert secret.encode() not in once
    assert decrypted(key, "alice", once) == secret


@pytest.mark.parametrize("rules_want", [False, True])
async def test_who_is_asked(section: Section, enrolments: Enrolments, device: Device, *, rules_want: bool) -> None:
    async def needed(ask: str, user: str) -> bool:
        totp = Totp(section.model_copy(update={"ask": ask}), enrolments)

        async def want() -> bool:
            return rules_want

        return await totp.is_needed(Identity(user, "ldap"), want)

    assert await needed("enrolled", "alice")
    assert not await needed("enrolled", "bob")
    assert await needed("by_rule", "alice") is rules_want
    assert not await needed("by_rule", "bob")  # a session will be refused to them, not the sign-in
    assert await needed("everyone", "alice")
    with pytest.raises(Refusal) as caught:
        await needed("everyone", "bob")
    assert caught.value.reason == Reason.SECOND_FACTOR_NEEDED
    await enrolments.enrol("alice", None)
    assert not await needed("enrolled", "alice")


def test_the_key_file(tmp_path: Path) -> None:
    path = tmp_path / "keys/totp_key"
    with pytest.raises(ConfigError, match="make it with: bastion keys init"):
        load_key(path)
    assert make_key(path)
    key = load_key(path)
    assert not make_key(path)
    assert (load_key(path), len(key), path.stat().st_mode & 0o777) == (key, 32, 0o600)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    for wrong in (b"", b"not base64!", b"AAAA", b"A" * 2000):
        path.write_bytes(wrong)
        with pytest.raises(ConfigError, match="is no key"):
            load_key(path)


def test_the_uri_is_what_an_app_reads() -> None:
    secret = new_secret()
    parsed = pyotp.parse_uri(otpauth_uri(secret, "al ice@example", "the bastion"))
    assert (parsed.secret, parsed.name, parsed.issuer) == (
        secret,
        "al ice@example",
        "the bastion",
    )
