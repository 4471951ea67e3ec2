import base64
import contextlib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.auth.publickey import AuthorizedKey, is_from, parse

NOW = datetime(2030, 6, 15, 12, 0, tzinfo=UTC)


def blob(key_type: str = "ssh-ed25519", rest: bytes = b"\0\0\0\x20" + bytes(range(32))) -> bytes:
    return len(key_type).to_bytes(4, "big") + key_type.encode() + rest


def line(options: str = "", key_type: str = "ssh-ed25519", comment: str = "alice@laptop") -> str:
    return f"{options} {key_type} {base64.b64encode(blob(key_type)).decode()} {comment}".strip()


def parsed(text: str) -> AuthorizedKey:
    key = parse(text)
    assert key is not None
    return key


@pytest.mark.parametrize("text", ["", "  ", "\n", "# comment", "\t# ssh-ed25519 AAAA"])
def test_lines_without_a_key(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("key_type", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
@pytest.mark.parametrize(
    "options", ["", "no-pty", 'from="10.0.0.0/8",restrict,pty', 'command="echo \\"ssh-rsa AAAA\\""']
)
def test_keys(key_type: str, options: str) -> None:
    for comment in ("", "alice@laptop", 'a comment with "quotes, and" more'):
        key = parsed(line(options, key_type, comment) + "\r\n")
        assert (key.type, key.blob) == (key_type, blob(key_type))
        assert key.is_key(key_type, blob(key_type))
        assert not key.is_key(key_type, blob(key_type, b"\0\0\0\x20" + bytes(32)))
        assert not key.is_key("ssh-dss", blob(key_type))
        assert not key.is_key("ssh-\udce4", blob(key_type)[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519",
        "ssh-ed25519 not-base64!",
        f"ssh-rsa {base64.b64encode(blob()).decode()}",  # another type inside
        f"ssh-ed25519 {base64.b64encode(blob(rest=b'')).decode()}",
        f"ssh-ed25519 {base64.b64encode(blob()).decode()[:-2]}",
        line('from="10.0.0.1'),
        line('from="10.0.0.1"x'),
        line('from="10.0.0.1\\",no-pty'),
        line("from=10.0.0.1"),
        line("no-pty,"),
        line(",no-pty"),
        line("no-pty,,restrict"),
        line("no pty"),
        line('expiry-time="tomorrow"'),
        line('expiry-time="20300230"'),
        line('expiry-time="203001"'),
        line('expiry-time=""'),
        line('expiry-time="00010101"') + "\x1b[2J",
        "ssh-ed25519 AAAA\0",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
    ids=ascii,
)
def test_lines_that_are_none(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any sentence
        parse(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("options", "not_honoured"),
    [
        ("no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-user-rc", ()),
        ("X11-forwarding,port-forwarding,agent-forwarding,user-rc,pty,no-touch-required", ()),
        ('permitopen="host:80",permitlisten="8080"', ()),
        ("restrict,pty", ()),
        ("RESTRICT,PTY", ()),
        ("restrict", ("restrict",)),
        ("pty,restrict", ("restrict",)),
        ("no-pty", ("no-pty",)),
        ('command="/bin/true"', ("command",)),
        ('environment="ROLE=reader"', ("environment",)),
        ("cert-authority", ("cert-authority",)),
        ('principals="alice"', ("principals",)),
        ("verify-required", ("verify-required",)),
        ('tunnel="0"', ("tunnel",)),
        ("some-new-option", ("some-new-option",)),
        ('from="10.0.0.1",from="10.0.0.2"', ("from", "from")),
        ("from", ("from",)),
        ("expiry-time", ("expiry-time",)),
        ('from="!*.example.org,*"', ("from=!*.example.org",)),
        ('from="!10.0.0.1/8,*"', ("from=!10.0.0.1/8",)),  # host bits: no network, and nothing would be kept out
        ('from="!10.*,*"', ()),
    ],
)
def test_an_option_that_can_not_be_honoured_refuses_the_key(options: str, not_honoured: tuple[str, ...]) -> None:
    key = parsed(line(options))
    assert key.unsupported == not_honoured
    why = key.why_not("192.0.2.1", NOW)
    if not_honoured:
        assert why is not None
        assert not_honoured[0] in why
    else:
        assert why is None


@pytest.mark.parametrize(
    ("expiry", "expired"),
    [
        ("20300615120000Z", True),
        ("20300615120001Z", False),
        ("203006151200Z", True),
        ("203006151201Z", False),
        ("20300615Z", True),
        ("20300616Z", False),
        ("20300613", True),
        ("20300618", False),
        ("19700101", True),
        ("99991230", False),
    ],
)
def test_expiry(expiry: str, expired: bool) -> None:
    why = parsed(line(f'expiry-time="{expiry}"')).why_not("192.0.2.1", NOW)
    assert (why is not None) == expired
    both = parsed(line(f'expiry-time="{expiry}",expiry-time="20400101"'))
    assert (both.why_not("192.0.2.1", NOW) is not None) == expired  # the earlier one counts


def test_expiry_without_z_is_the_systems_time() -> None:
    local = (NOW + timedelta(seconds=1)).astimezone().strftime("%Y%m%d%H%M%S")
    key = parsed(line(f'expiry-time="{local}"'))
    assert key.why_not("192.0.2.1", NOW) is None
    assert key.why_not("192.0.2.1", NOW + timedelta(seconds=1)) is not None


@pytest.mark.parametrize(
    ("patterns", "source_ip", "allowed"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.10", False),
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.77", False),
        ("192.0.2.5/24", "192.0.2.77", False),  # no network: OpenSSH refuses it too
        ("192.0.2.*", "192.0.2.77", True),
        ("192.0.2.?", "192.0.2.7", True),
        ("192.0.2.?", "192.0.2.77", False),
        ("192.0.2.*", "192a0b2.77", False),
        ("10.0.0.0/8, 192.0.2.0/24", "192.0.2.77", True),
        ("*,!192.0.2.77", "192.0.2.77", False),
        ("!192.0.2.77,*", "192.0.2.77", False),
        ("!192.0.2.77,*", "192.0.2.78", True),
        ("!192.0.2.77", "192.0.2.78", False),
        ("!192.0.2.0/24,192.0.2.77", "192.0.2.77", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:DB8:*", "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.0/24", "::ffff:192.0.2.77", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("laptop.example.org", "192.0.2.1", False),
        ("[0-9]*", "192.0.2.1", False),
        ("", "192.0.2.1", False),
        ("*", "not an address", False),
        ("*", "", False),
    ],
)
def test_from(patterns: str, source_ip: str, allowed: bool) -> None:
    assert is_from(patterns, source_ip) == allowed
    why = parsed(line(f'from="{patterns}"')).why_not(source_ip, NOW)
    assert (why is None) == allowed


@given(st.text())
def test_any_line_is_a_key_nothing_or_a_sentence(text: str) -> None:
    with contextlib.suppress(ValueError):
        key = parse(text)
        assert key is None or key.blob


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"], include_characters=" ")))
def test_a_quoted_value_never_ends_early(value: str) -> None:
    quoted = value.replace("\\", "").replace('"', '\\"')
    key = parsed(line(f'from="{quoted}"'))
    assert key.origins == value.replace("\\", "")
    assert key.blob == blob()


@given(st.ip_addresses(), st.integers(0, 32))
def test_a_network_allows_what_is_in_it(address: object, bits: int) -> None:
    source = ip_address(str(address))
    if getattr(source, "ipv4_mapped", None):
        return
    network = ip_network(f"{source}/{bits}", strict=False)
    assert is_from(str(network), str(source))
    assert not is_from(f"!{network},*", str(source))
    assert is_from(str(network), "203.0.113.9") == (ip_address("203.0.113.9") in network)


@given(st.text(alphabet="0123456789.*?", max_size=12), st.ip_addresses(v=4))
def test_wildcards_are_those_of_the_shell(pattern: str, address: object) -> None:
    from fnmatch import fnmatchcase

    if "/" not in pattern:
        assert is_from(pattern, str(address)) == fnmatchcase(str(address), pattern)
