"""Certificates as ssh-keygen makes them, and the lists that revoke them."""

import asyncio
import base64
import contextlib
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.auth import krl
from bastion.auth.authenticator import Authenticator
from bastion.auth.certificate import Certificate, fingerprint, is_certificate, parse, string
from bastion.auth.refusals import REFUSED
from bastion.auth.throttle import Throttle
from bastion.auth.users_file import User, changing_users
from bastion.config import Auth, Certificates, LocalUsers, Penalties
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity
from bastion.ssh.user_certificates import verify

IP = "192.0.2.1"


def keygen(*arguments: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, arguments)], check=True, capture_output=True)


def blob(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


class Authority:
    """A CA in a folder, which signs alice's key."""

    def __init__(self, folder: Path, kind: str = "ed25519") -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("ca", "alice"):
            keygen("-N", "", "-t", kind, "-f", folder / name)

    @property
    def line(self) -> str:
        return (self.folder / "ca.pub").read_text().strip()

    def sign(
        self, *options: object, principals: str | None = "alice", key_id: str = "alice's", serial: int = 7
    ) -> bytes:
        named = ["-n", principals] if principals is not None else []
        keygen("-s", self.folder / "ca", "-I", key_id, "-z", serial, *named, *options, self.folder / "alice.pub")
        return blob(self.folder / "alice-cert.pub")

    def krl(self, *specification: str, keys: tuple[str, ...] = ()) -> bytes:
        (self.folder / "spec").write_text("\n".join(specification))
        files = [self.folder / "spec"] * bool(specification) + [self.folder / key for key in keys]
        keygen("-k", "-f", self.folder / "krl", "-s", self.folder / "ca.pub", *files)
        return (self.folder / "krl").read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ca")


class Door:
    """A bastion that trusts the CA; alice is in the users file, and mallory is not."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.revoked = folder / "revoked"
        self.revoked.write_bytes(b"")
        with changing_users(folder / "users.yaml") as users:
            users["alice"] = User(groups=["developers"])
            users["dora"] = User(disabled=True)
        auth = Auth(
            local=LocalUsers(file=folder / "users.yaml"),
            certificates=Certificates(ca_key=None, authorities=(authority.line,)),
            revoked_keys=self.revoked,
        )
        self.authenticator = Authenticator(auth, Throttle(Penalties()))

    def let_in(self, certificate: bytes, user: str = "alice", source_ip: str = IP) -> Identity:
        return asyncio.run(self.authenticator.certificate(user, certificate, source_ip, verify))

    def refusal(self, certificate: bytes, user: str = "alice", source_ip: str = IP) -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.let_in(certificate, user, source_ip)
        assert caught.value.log_text.isprintable()
        return caught.value


@pytest.fixture
def door(tmp_path: Path, authority: Authority) -> Door:
    return Door(tmp_path, authority)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_certificate_says_who_how_long_and_by_whom(tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path / "ca", kind)
    identity = Door(tmp_path, authority).let_in(authority.sign("-V", "-5m:+1h", principals="bob,alice"))
    assert (identity.user, identity.method, identity.groups) == ("alice", "certificate", frozenset({"developers"}))
    assert identity.expires is not None
    assert 3500 < identity.expires.timestamp() - time.time() < 3660
    key, ca = fingerprint(blob(tmp_path / "ca/alice.pub")), fingerprint(blob(tmp_path / "ca/ca.pub"))
    assert identity.credential == {"key": key, "key_id": "alice's", "serial": 7, "ca": ca}
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "ca/ca.pub"], capture_output=True, text=True, check=True)
    assert ca in shown.stdout


def test_what_it_limits(authority: Authority, door: Door) -> None:
    identity = door.let_in(authority.sign("-O", "force-command=echo $SSH_ORIGINAL_COMMAND", "-O", "no-pty"))
    assert (identity.force_command, identity.may_have_terminal) == ("echo $SSH_ORIGINAL_COMMAND", False)
    identity = door.let_in(authority.sign())
    assert (identity.force_command, identity.may_have_terminal, identity.expires) == (None, True, None)
    here = authority.sign("-O", f"source-address=10.0.0.0/8,{IP}/32,2001:db8::/32")
    for source_ip in (IP, "10.9.9.9", f"::ffff:{IP}", "2001:db8::9%eth0"):
        assert door.let_in(here, source_ip=source_ip)
    for source_ip in ("192.0.2.2", "11.0.0.1", "2001:db9::1"):
        no = door.refusal(here, source_ip=source_ip)
        assert (no.reason, "source-address" in no.log_text) == (Reason.CERTIFICATE_NOT_ALLOWED, True)


WRONG = {
    "bob's": ({"principals": "bob"}, Reason.WRONG_PRINCIPAL, "it is for bob"),
    "nobody's": ({"principals": None}, Reason.WRONG_PRINCIPAL, "it has no principals"),
    "Alice's": ({"principals": "Alice"}, Reason.WRONG_PRINCIPAL, "it is for Alice"),
    "a pattern": ({"principals": "*,alice+web,alice "}, Reason.WRONG_PRINCIPAL, "it is for"),
    "over": ("-V -2h:-1m", Reason.CERTIFICATE_EXPIRED, "it ended 6"),
    "yet to come": ("-V +1m:+1h", Reason.CERTIFICATE_NOT_YET_VALID, "it begins in "),
    "a host's": ("-h", Reason.CERTIFICATE_NOT_ALLOWED, "it is no user certificate"),
    "an option": ("-O critical:what@example.org=x", Reason.CERTIFICATE_NOT_ALLOWED, "what@example.org"),
    "verify-required": ("-O verify-required", Reason.CERTIFICATE_NOT_ALLOWED, "verify-required"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_opens_nothing(authority: Authority, door: Door, what: str) -> None:
    how, reason, text = WRONG[what]
    certificate = authority.sign(**how) if isinstance(how, dict) else authority.sign(*how.split())
    no = door.refusal(certificate)
    assert (no.reason, no.user_text) == (reason, REFUSED)
    assert text in no.log_text
    assert door.let_in(authority.sign()).user == "alice"


def test_a_principal_that_nobody_knows(authority: Authority, door: Door) -> None:
    assert door.refusal(authority.sign(principals="mallory"), "mallory").reason == Reason.UNKNOWN_USER
    assert door.refusal(authority.sign(principals="dora"), "dora").reason == Reason.USER_DISABLED


def test_another_authority_and_a_forged_signature(authority: Authority, door: Door, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").sign()
    assert door.refusal(other).reason == Reason.UNKNOWN_AUTHORITY
    good = authority.sign(principals="bob")
    forged = good.replace(string(string(b"bob")), string(string(b"eve")))
    assert door.refusal(forged, "eve").reason == Reason.BAD_SIGNATURE
    parsed = parse(good)
    replaced = parsed.signed + string(parsed.signature[:-1] + bytes([parsed.signature[-1] ^ 1]))
    assert door.refusal(replaced, "bob").reason == Reason.BAD_SIGNATURE


def test_a_signature_by_sha1_is_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "rsa")
    door = Door(tmp_path, authority)
    assert door.let_in(authority.sign()).user == "alice"
    assert door.refusal(authority.sign("-t", "ssh-rsa")).reason == Reason.BAD_SIGNATURE


def test_no_certificate_opens_anything_where_there_is_no_such_section(authority: Authority, tmp_path: Path) -> None:
    with changing_users(tmp_path / "users.yaml") as users:
        users["alice"] = User(authorized_keys=[(authority.folder / "alice.pub").read_text()])
    who = Authenticator(Auth(local=LocalUsers(file=tmp_path / "users.yaml")), Throttle(Penalties()))
    with pytest.raises(Refusal, match=r"no section auth\.certificates"):
        asyncio.run(who.certificate("alice", authority.sign(), IP, verify))


# ---- hostile bytes ----


def test_a_certificate_cut_short_anywhere(authority: Authority, door: Door) -> None:
    whole = authority.sign("-O", "force-command=x")
    assert is_certificate(whole)
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"\w"):
            parse(whole[:size])
    for wrong in (whole + b"\0", b"", b"\xff" * 100, string(b"ssh-ed25519-cert-v01@openssh.com") + b"\xff" * 50):
        assert door.refusal(wrong).reason == Reason.CERTIFICATE_NOT_ALLOWED


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: string(b"ssh-rsa-cert-v01@openssh.com") + b))
def test_any_bytes_are_a_certificate_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(data), Certificate)


def made(critical: bytes) -> Certificate:
    parts = [b"ssh-ed25519-cert-v01@openssh.com", b"nonce", b"k" * 32]
    data = b"".join(map(string, parts)) + struct.pack(">QI", 1, 1) + string(b"id") + string(string(b"alice"))
    data += struct.pack(">QQ", 0, 2**64 - 1) + string(critical) + string(b"") + string(b"") + string(b"ca")
    return parse(data + string(b"signature"))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"10.0.0.0/8",
        string(b"10.0.0.0/8") + b"\0",
        string(b""),
        string(b"10.1.1.1/8"),
        string(b"\xff"),
        string(b"here"),
    ],
)
def test_a_source_address_that_can_not_be_read_is_nowhere(value: bytes) -> None:
    certificate = made(string(b"source-address") + string(value))
    assert certificate.why_not("alice", "10.0.0.1", 1.0) is not None
    assert made(b"").why_not("alice", "10.0.0.1", 1.0) is None


def test_an_option_that_is_there_twice() -> None:
    with pytest.raises(ValueError, match="there twice"):
        made(2 * (string(b"force-command") + string(string(b"x"))))


# ---- revoked ----

HEADER = krl.MAGIC + struct.pack(">IQQQ", 1, 0, 0, 0) + 2 * string(b"")


def revocations(authority: Authority) -> list[tuple[str, Callable[[], bytes]]]:
    sha256 = fingerprint(blob(authority.folder / "alice.pub"))
    key = (authority.folder / "alice.pub").read_text()
    return [
        ("serial", lambda: authority.krl("serial: 7")),
        ("serials", lambda: authority.krl("serial: 3", "serial: 7", "serial: 1000000")),
        ("bitmap", lambda: authority.krl(*(f"serial: {n}" for n in range(1, 200, 2)))),
        ("range", lambda: authority.krl("serial: 5-100000")),
        ("key id", lambda: authority.krl("id: alice's")),
        ("key", lambda: authority.krl(keys=("alice.pub",))),
        ("key of a line", lambda: authority.krl(f"key: {key}")),
        ("sha1", lambda: authority.krl(f"sha1: {key}")),
        ("sha256", lambda: authority.krl(f"hash: {sha256}")),
        ("certificate", lambda: authority.krl(keys=("alice-cert.pub",))),
        ("CA", lambda: authority.krl(keys=("ca.pub",))),
        ("list", lambda: b"# gone\n\n" + key.encode()),
        ("list with the CA", authority.line.encode),
    ]


@pytest.mark.parametrize("number", range(13))
def test_what_ssh_keygen_revokes_is_revoked(authority: Authority, door: Door, number: int) -> None:
    """And what it does not, is not: sshd's own reader agrees (ssh-keygen -Q)."""
    certificate = authority.sign()
    name, make = revocations(authority)[number]
    data = make()
    door.revoked.write_bytes(data)
    assert door.refusal(certificate).reason == Reason.KEY_REVOKED, name
    krl_of_another = authority.krl("serial: 8", "serial: 10-20", "id: alice", "serial: 1", "serial: 3", "serial: 5")
    door.revoked.write_bytes(krl_of_another)  # read again, since it has changed
    assert door.let_in(certificate).user == "alice"
    if data.startswith(krl.MAGIC):
        (authority.folder / "krl").write_bytes(data)
        for path in (authority.folder / "alice-cert.pub", authority.folder / "alice.pub"):
            said = subprocess.run(
                ["ssh-keygen", "-Qf", authority.folder / "krl", path], capture_output=True, check=False
            )
            revoked, parsed = krl.parse(data), blob(path)
            ours = revoked.revokes(parse(parsed)) if is_certificate(parsed) else revoked.revokes_key(parsed)
            assert ours is (said.returncode != 0), path


def test_a_revoked_key_is_no_key_of_a_user_either(authority: Authority, door: Door, tmp_path: Path) -> None:
    key = blob(authority.folder / "alice.pub")
    with changing_users(tmp_path / "users.yaml") as users:
        users["alice"] = User(authorized_keys=[(authority.folder / "alice.pub").read_text()])

    def sign_in() -> Identity:
        return asyncio.run(door.authenticator.public_key("alice", "ssh-ed25519", key, IP))

    assert sign_in().credential == {"key": fingerprint(key)}
    door.revoked.write_bytes(authority.krl(keys=("alice.pub",)))
    with pytest.raises(Refusal, match="is revoked"):
        sign_in()


@pytest.mark.parametrize(
    "data",
    [
        b"SSHKRL\n\0",
        b"no key at all",
        b"ssh-ed25519 AAAA",
        b"\xff\xfe",
        krl.MAGIC + struct.pack(">IQQQ", 2, 0, 0, 0) + 2 * string(b""),
        HEADER + b"\x04" + string(b"signed"),
        HEADER + b"\x63" + string(b"what"),
        krl.MAGIC
        + struct.pack(">IQQQ", 1, 0, 0, 0)
        + 2 * string(b"")
        + b"\xff"
        + string(string(b"x") + b"\1" + string(b"")),
        krl.MAGIC
        + struct.pack(">IQQQ", 1, 0, 0, 0)
        + 2 * string(b"")
        + b"\1"
        + string(2 * string(b"") + b"\x99" + string(b"")),
    ],
    ids=range(9),
)
def test_a_file_that_is_not_understood_lets_nobody_in(authority: Authority, door: Door, data: bytes) -> None:
    door.revoked.write_bytes(data)
    no = door.refusal(authority.sign())
    assert isinstance(no, Unavailable)
    assert str(door.revoked) in no.log_text
    door.revoked.unlink()
    assert isinstance(door.refusal(authority.sign()), Unavailable)
    door.revoked.write_bytes(b"")
    assert door.let_in(authority.sign()).user == "alice"


def test_an_extension_that_is_not_critical_is_skipped() -> None:
    assert krl.parse(HEADER + b"\xff" + string(string(b"x") + b"\0" + string(b"data")))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_krl_or_an_error(data: bytes) -> None:
    for whole in (data, krl.MAGIC + data, HEADER + data, HEADER + b"\1" + string(2 * string(b"") + data)):
        with contextlib.suppress(ValueError):
            krl.parse(whole)


@settings(max_examples=20, deadline=None)
@given(
    st.sets(st.integers(1, 2**63), max_size=8),
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 300)), max_size=3),
)
def test_serials_are_those_that_ssh_keygen_wrote(
    authority: Authority, serials: set[int], ranges: list[tuple[int, int]]
) -> None:
    lines = [f"serial: {n}" for n in serials] + [f"serial: {first}-{first + more}" for first, more in ranges]
    revoked = krl.parse(authority.krl(*lines or ["id: nobody"]))
    ca = blob(authority.folder / "ca.pub")
    numbers = serials | {n for first, more in ranges for n in (first, first + more)}
    for n in numbers | {n + 1 for n in numbers} | {n - 1 for n in numbers} - {0}:
        expected = n in serials or any(first <= n <= first + more for first, more in ranges)
        certificate = Certificate(b"", n, 1, "", (), 0, 0, {}, {}, ca, b"", b"")
        assert revoked.revokes(certificate) is expected, n
