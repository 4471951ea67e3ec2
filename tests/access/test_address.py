import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bastion.access.address import MAX_USER_NAME, names_exactly, parse_address, parse_user_name
from bastion.errors import Reason, Refusal
from bastion.model import NAME, Address

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,10}", fullmatch=True)
procs = names.filter(lambda name: not name.isdecimal())
instances = st.integers(0, 999_999_999)


@pytest.mark.parametrize(
    ("ssh_user", "user", "address"),
    [
        ("alice", "alice", None),
        ("alice+web", "alice", Address("web")),
        ("alice+web.worker", "alice", Address("web", "worker")),
        ("alice+web.worker.1", "alice", Address("web", "worker", 1)),
        ("alice+web.1", "alice", Address("web", None, 1)),
        ("alice+web.worker.0", "alice", Address("web", "worker", 0)),
        ("alice+eu-1/web.worker.2", "alice", Address("web", "worker", 2, "eu-1")),
        ("alice+resource.redis.hello.worker.3", "alice", Address("resource.redis.hello", "worker", 3)),
        ("alice+web.7.3", "alice", Address("web", "7", 3)),
        ("alice+7", "alice", Address("7")),
        ("a+b+web", "a+b", Address("web")),
        ("a+b+", "a+b", None),
        ("+++", "++", None),
        ("alice@example.org+web", "alice@example.org", Address("web")),
        ("CORP\\alice", "CORP\\alice", None),
        ("zoë", "zoë", None),
        ("../../etc/passwd", "../../etc/passwd", None),  # a name like any other; nobody has it
        ("*)(uid=*", "*)(uid=*", None),  # the directory's filter escapes it
    ],
)
def test_reads_the_user_and_the_address_from_the_right(ssh_user: str, user: str, address: Address | None) -> None:
    assert parse_user_name(ssh_user) == (user, address)


@pytest.mark.parametrize(
    "ssh_user",
    [
        "",
        "+",
        "+web",
        "alice\0",
        "alice\n+web",
        "ali\x1b[2Jce",
        "alice\u202e",
        "a\udcffb",
        " alice",
        "alice +web",
        "a" * 10_000,
    ],
)
def test_refuses_what_is_no_user_name(ssh_user: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_user_name(ssh_user)
    assert refused.value.reason is Reason.MALFORMED_USER_NAME
    assert "alice+web.worker.1" in refused.value.user_text  # says what would be right
    assert refused.value.log_text.isprintable()
    assert len(refused.value.log_text) < 600


@pytest.mark.parametrize(
    "text",
    [
        "web.worker.-1",
        "web.worker.007",
        "web.worker.00",
        f"web.worker.{10**12}",
        "web.worker.1٢",
        "web.٢",
        "web.worker.1\n",
        "web.worker.1 ",
        "web\0",
        "we\x1b]0;x\x07b",
        "../web",
        "a/b/web",
        "/web",
        "eu/",
        "-/web",
        ".",
        "web.",
        ".web",
        "web..1",
        "web.-x",
        "-web",
        "wéb",
        "a" * 129,
        f"web.{'a' * 129}.1",
    ],
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_user_name(f"alice+{text}")
    assert refused.value.reason is Reason.MALFORMED_ADDRESS
    assert "[cluster/]app[.process[.instance]]" in refused.value.user_text
    assert refused.value.user_text.isprintable()
    assert refused.value.log_text.isprintable()


def test_an_address_of_ten_thousand_characters_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refusal, match="longer than"):
        parse_user_name("alice+" + "a." * 5_000 + "1")


@given(st.text() | st.text("+./-01a\0\n\x1b", max_size=20))
@example("+" * MAX_USER_NAME)
def test_anything_is_read_or_refused(ssh_user: str) -> None:
    refusal = None
    try:
        user, address = parse_user_name(ssh_user)
    except Refusal as raised:
        refusal = raised
    if refusal is not None:
        assert refusal.reason in {Reason.MALFORMED_USER_NAME, Reason.MALFORMED_ADDRESS}
        assert (refusal.user_text + refusal.log_text).isprintable()
    else:
        assert user.isprintable()
        assert ssh_user in ({user, f"{user}+"} if address is None else {f"{user}+{address}"})
        assert address is None or NAME.fullmatch(address.app)


@given(
    st.lists(names, min_size=1, max_size=4).map(".".join),
    procs,
    st.none() | instances,
    st.none() | st.just("eu.west-1"),
)
def test_an_address_is_read_as_it_is_written(app: str, proc: str, instance: int | None, cluster: str | None) -> None:
    address = Address(app, proc, instance, cluster)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("written", "container", "exactly"),
    [
        ("web.worker.1", Address("web", "worker", 1), True),
        ("web.worker.1", Address("web", "worker", 1, "eu"), True),
        ("eu/web.worker.1", Address("web", "worker", 1, "eu"), True),
        ("shop.a.b.1", Address("shop", "a.b", 1), True),  # Compose allows dots in a service's name
        ("web.worker.1", Address("web.worker.1", "main", 1), False),
        ("web.worker", Address("web", "worker", 1), False),
    ],
)
def test_a_complete_address_is_told_from_one_that_merely_fits(written: str, container: Address, exactly: bool) -> None:
    assert names_exactly(parse_address(written), container) is exactly
