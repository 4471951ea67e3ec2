import asyncio
import base64
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bastion.auth import ldap
from bastion.auth.certificate import fingerprint
from bastion.auth.ldap import Ldap
from bastion.auth.refusals import REFUSED, UNAVAILABLE
from bastion.config import Ldap as Section
from bastion.errors import ConfigError, Reason, Refusal, Unavailable
from bastion.model import Identity
from bastion.remote import breaker
from tests.auth.conftest import Misbehaving
from tests.auth.test_local import KEY, LINE, OTHER
from tests.servers.process import free_port
from tests.servers.slapd import ADMIN_DN, BASE, GROUPS, PASSWORD, PEOPLE, READER_DN, Slapd, slapd

SECRET = PASSWORD.encode()
SEARCH = {"search_base": PEOPLE, "bind_dn": READER_DN, "bind_password": PASSWORD}
TEMPLATE = {"bind_template": f"uid={{user}},{PEOPLE}"}
OTHER_LINE = f"ssh-ed25519 {base64.b64encode(OTHER).decode()} kim@laptop"
GROUP_SEARCH = {"group_base": GROUPS}
Starter = Callable[[Callable[[socket.socket], None]], Misbehaving]


@contextlib.asynccontextmanager
async def signing_in(directory: Slapd, **options: Any) -> AsyncIterator[Ldap]:
    how: dict[str, Any] = {"servers": [directory.tls_url], "ca_file": directory.ca_file, "timeout": 5, **options}
    method = Ldap(Section(**how))
    try:
        yield method
    finally:
        await method.close()


async def refusal(method: Ldap, user: str, password: bytes = SECRET) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await method.password(user, password, "192.0.2.1")
    assert caught.value.user_text == (UNAVAILABLE if isinstance(caught.value, Unavailable) else REFUSED)
    assert caught.value.log_text.isprintable()
    return caught.value


async def unavailable(method: Ldap, user: str = "alice") -> str:
    no = await refusal(method, user)
    assert isinstance(no, Unavailable), no
    assert no.reason == Reason.AUTH_UNAVAILABLE
    return no.log_text


def transports(directory: Slapd) -> dict[str, dict[str, Any]]:
    return {
        "ldaps": {"servers": [directory.tls_url]},
        "starttls": {"servers": [directory.url], "start_tls": True},
        "cleartext": {"servers": [directory.url], "allow_cleartext": True},
    }


# ---- who signs in ----


@pytest.mark.parametrize("transport", ["ldaps", "starttls", "cleartext"])
@pytest.mark.parametrize("mode", [SEARCH, TEMPLATE], ids=["search", "template"])
async def test_right_and_wrong_passwords(directory: Slapd, transport: str, mode: dict[str, Any]) -> None:
    async with signing_in(directory, **mode, **transports(directory)[transport]) as method:
        assert await method.password("alice", SECRET, "192.0.2.1") == Identity(
            "alice",
            "ldap",
            frozenset({"developers", "ops, eu", "circle-a", "self-made"}),
            {"dn": f"uid=alice,{PEOPLE}"},
        )
        assert (await method.password("bob", b"bob's own", "192.0.2.1")).groups == {"app-vault"}
        assert (await refusal(method, "alice", b"wrong")).reason == Reason.WRONG_CREDENTIALS
        assert (await refusal(method, "bob")).reason == Reason.WRONG_CREDENTIALS
        unknown = Reason.UNKNOWN_USER if mode is SEARCH else Reason.WRONG_CREDENTIALS
        assert (await refusal(method, "nobody")).reason == unknown


async def test_the_password_is_not_in_what_is_logged(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    servers = [f"ldap://127.0.0.1:{free_port()}", directory.url]
    async with signing_in(directory, **SEARCH, servers=servers, allow_cleartext=True) as method:
        await method.password("alice", SECRET, "192.0.2.1")
        no = await refusal(method, "alice", b"hunter2 hunter2")
    assert "LDAP server" in caplog.text
    for secret in (PASSWORD, "hunter2"):
        assert secret not in caplog.text + no.log_text + str(no) + repr(no.__cause__)


async def test_an_empty_password_is_refused_before_any_bind(misbehaving: Starter, directory: Slapd) -> None:
    # slapd here lets a bind with a name and no password succeed
    server = misbehaving(lambda connection: None)
    for mode in (SEARCH, TEMPLATE):
        servers = [f"ldap://127.0.0.1:{server.port}"]
        async with signing_in(directory, **mode, servers=servers, allow_cleartext=True) as method:
            assert (await refusal(method, "alice", b"")).reason == Reason.EMPTY_PASSWORD
    assert server.connections == 0


HOSTILE = [
    "*",
    "a*",
    "*)(uid=*",
    "alice)(|(uid=*",
    "alice)(uid=*))(|(uid=*",
    "alice\0",
    "alice\0)(uid=bob",
    "\\61lice",
    "\\alice",
    " alice",
    "alice ",
    "ALICE",
    "Alice",
    "ａlice",  # noqa: RUF001 - a full-width a: the directory takes it for the same
    "alice\n",
    "alice\x1b[2J",
    "a" * 10_000,
    "",
    "alice,ou=people",
    f"alice,{PEOPLE}",
    "alice+cn=somebody",
    "#616c696365",
    '"alice"',
    "alice;",
    "../alice",
    "{dn}",
    "{user}",
]


@pytest.mark.parametrize("user", HOSTILE, ids=ascii)
@pytest.mark.parametrize("mode", [SEARCH, TEMPLATE], ids=["search", "template"])
async def test_hostile_names_are_nobody(directory: Slapd, mode: dict[str, Any], user: str) -> None:
    async with signing_in(directory, **mode) as method:
        no = await refusal(method, user)
        assert (await method.password("alice", SECRET, "192.0.2.1")).user == "alice"
    assert len(no.log_text) < 400 or len(user) > 1000


@pytest.mark.parametrize("uid", ["we*rd)(x", "back\\slash", "o'neil, jr", '+"<>;=#', "# hash", "é☃"], ids=ascii)
async def test_names_of_metacharacters_find_their_own_entry(directory: Slapd, uid: str) -> None:
    from ldap3.utils.dn import escape_rdn

    dn = directory.add_user(uid, rdn=f"uid={escape_rdn(uid)}")
    for mode in (SEARCH, TEMPLATE):
        async with signing_in(directory, **mode) as method:
            found = await method.password(uid, SECRET, "192.0.2.1")
            assert found.user == uid
            assert found.claims["dn"].lower().endswith(PEOPLE)
            assert (await refusal(method, uid, b"wrong")).reason == Reason.WRONG_CREDENTIALS
    assert dn


async def test_who_is_found_is_who_was_asked_for(directory: Slapd) -> None:
    async with signing_in(directory, **SEARCH) as method:
        no = await refusal(method, "ALICE")
        assert no.reason == Reason.UNKNOWN_USER
        assert "has another uid" in no.log_text
    async with signing_in(directory, **TEMPLATE) as method:
        assert "has another uid" in (await refusal(method, "ALICE")).log_text
    async with signing_in(directory, **SEARCH, search_filter="(|(uid={user})(cn={user}))") as method:
        assert "more than one" in (await refusal(method, "somebody")).log_text
        assert "more than one" in (await refusal(method, "twin")).log_text


# ---- groups ----


@pytest.mark.parametrize("mode", [{**SEARCH}, {"search_base": PEOPLE, "bind_dn": ADMIN_DN, "bind_password": PASSWORD}])
async def test_groups_by_search(directory: Slapd, mode: dict[str, Any]) -> None:
    direct = {"developers", "ops, eu", "circle-a"}  # not self-made: it is not below the group_base
    async with signing_in(directory, **mode, **GROUP_SEARCH) as method:
        assert (await method.password("alice", SECRET, "")).groups == direct
    async with signing_in(directory, **mode, **GROUP_SEARCH, nested_groups=True) as method:
        assert (await method.password("alice", SECRET, "")).groups == direct | {"app-web", "circle-b"}
        assert (await method.password("bob", b"bob's own", "")).groups == {"app-vault"}


async def test_groups_named_by_user(directory: Slapd) -> None:
    directory.add(f"cn=posix,{GROUPS}", ["groupOfNames", "extensibleObject"], cn="posix", member=ADMIN_DN, uid="bob")
    async with signing_in(directory, **SEARCH, **GROUP_SEARCH, group_filter="(uid={user})") as method:
        assert (await method.password("bob", b"bob's own", "")).groups == {"posix"}


async def test_no_groups(directory: Slapd) -> None:
    async with signing_in(directory, **SEARCH, member_of=None) as method:
        assert (await method.password("alice", SECRET, "")).groups == set()


async def test_too_many_groups_end_in_a_sentence(directory: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldap, "MAX_GROUPS", 3)
    async with signing_in(directory, **SEARCH) as method:
        assert "in more than 3 LDAP groups" in await unavailable(method)
    async with signing_in(directory, **SEARCH, **GROUP_SEARCH, nested_groups=True) as method:
        assert "in more than 3 LDAP groups" in await unavailable(method)


async def test_many_levels_and_many_groups(directory: Slapd) -> None:
    inner = directory.add_user("deep")
    for level in range(120):
        inner = directory.add_group(f"level-{level}", inner)
    wide = directory.add_user("wide")
    broad = [directory.add_group(f"wide-{number}", wide) for number in range(120)]
    directory.add_group("all-wide", *broad)
    async with signing_in(directory, **SEARCH, **GROUP_SEARCH, nested_groups=True) as method:
        assert len((await method.password("deep", SECRET, "")).groups) == 120
        assert len((await method.password("wide", SECRET, "")).groups) == 121


# ---- an outage is not a wrong password ----


@pytest.mark.parametrize(
    "wrong",
    [
        {"bind_password": "wrong"},
        {"bind_dn": f"cn=nobody,{BASE}"},
        {"search_base": f"ou=nowhere,{BASE}"},
        {"search_base": "dc=other"},
        {"search_base": "no dn"},
        {"group_base": f"ou=nowhere,{BASE}"},
        {"search_filter": "(uid={user}))((x=y)"},
    ],
    ids=str,
)
async def test_what_is_configured_wrong_is_unavailable(directory: Slapd, wrong: dict[str, Any]) -> None:
    async with signing_in(directory, **{**SEARCH, **wrong}) as method:
        await unavailable(method)


@pytest.mark.parametrize("transport", ["ldaps", "starttls"])
async def test_a_certificate_that_can_not_be_trusted(directory: Slapd, transport: str, tmp_path: Path) -> None:
    how = {**SEARCH, **transports(directory)[transport]}
    async with signing_in(directory, **how, **{"ca_file": None}) as method:
        assert "certificate verify failed" in await unavailable(method)
    named = [url.replace("127.0.0.1", "localhost") for url in how["servers"]]
    async with signing_in(directory, **{**how, "servers": named}) as method:
        assert "Hostname mismatch" in await unavailable(method)
    async with signing_in(directory, **how, **{"ca_file": None, "verify": False}) as method:
        assert (await method.password("alice", SECRET, "")).user == "alice"


async def test_a_ca_file_without_certificates(directory: Slapd, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"auth\.ldap\.ca_file.*holds no certificates"):
        Ldap(Section(servers=("ldaps://localhost",), ca_file=tmp_path / "ca.pem", **SEARCH))


async def test_starttls_is_not_left_out(servers_folder: Path, directory: Slapd) -> None:
    folder = servers_folder / "slapd-cleartext"
    folder.mkdir()
    evil = free_port()
    with slapd(folder, tls=False, more=f"referral ldap://127.0.0.1:{evil}\n") as server:
        server.add_user("alice")
        cleartext = {"servers": [server.url]}
        async with signing_in(directory, **TEMPLATE, **cleartext, allow_cleartext=True) as method:
            assert (await method.password("alice", SECRET, "")).user == "alice"
        async with signing_in(directory, **TEMPLATE, **cleartext, start_tls=True) as method:
            assert "LDAPStartTLSError" in await unavailable(method)
        # what this server does not hold, it refers to another one for
        other = {**SEARCH, "search_base": "dc=other"}
        with socket.create_server(("127.0.0.1", evil)) as listening:
            async with signing_in(directory, **other, **cleartext, allow_cleartext=True) as method:
                assert "referral" in await unavailable(method)
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):  # nobody came with a password
                listening.accept()


def drip(answers_from: int) -> Callable[[socket.socket], None]:
    """Pass on what the server on that port answers, a byte at a time and ever more slowly than anybody would wait."""

    def serve(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", answers_from)) as server:

            def requests() -> None:
                with contextlib.suppress(OSError):
                    while data := client.recv(4096):
                        server.sendall(data)
                    server.shutdown(socket.SHUT_RDWR)

            thread = threading.Thread(target=requests)
            thread.start()
            with contextlib.suppress(OSError):
                while data := server.recv(1):
                    client.sendall(data)
                    time.sleep(0.1)  # as slow as the server is meant to be
            client.shutdown(socket.SHUT_RDWR)
            thread.join()

    return serve


def silent(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def garbage(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + os.urandom(200))
    silent(client)


def endless(client: socket.socket) -> None:
    client.sendall(b"\x30\x84\x7f\xff\xff\xff")  # the length of what never comes
    while True:
        client.sendall(bytes(1000))
        time.sleep(0.01)


def hang_up(client: socket.socket) -> None:
    client.recv(1)


@pytest.mark.parametrize("how", [silent, garbage, endless, hang_up, drip], ids=lambda how: how.__name__)
@pytest.mark.parametrize("transport", ["ldaps", "starttls", "cleartext"])
async def test_a_broken_server_is_given_up_in_time(
    directory: Slapd, misbehaving: Starter, how: Callable[..., Any], transport: str
) -> None:
    port = directory.tls_port if transport == "ldaps" else directory.port
    broken = misbehaving(how(port) if how is drip else how)
    options = {**SEARCH, **transports(directory)[transport], "timeout": 0.5}
    good = options["servers"][0]
    options["servers"] = [good.replace(str(port), str(broken.port))]
    start = time.monotonic()
    async with signing_in(directory, **options) as method:
        await unavailable(method)
    assert time.monotonic() - start < 3
    assert broken.connections == 1
    options["servers"].append(good)
    async with signing_in(directory, **options) as method:
        assert (await method.password("alice", SECRET, "")).user == "alice"


async def test_failover_and_a_rest_for_what_failed(directory: Slapd, misbehaving: Starter) -> None:
    broken = misbehaving(hang_up)
    servers = [f"ldaps://127.0.0.1:{free_port()}", f"ldaps://127.0.0.1:{broken.port}", directory.tls_url]
    async with signing_in(directory, **SEARCH, servers=servers) as method:
        for _ in range(5):
            await method.password("alice", SECRET, "")
            assert (await refusal(method, "alice", b"wrong")).reason == Reason.WRONG_CREDENTIALS
    assert broken.connections == 1


async def test_what_failed_is_asked_again(
    directory: Slapd, misbehaving: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "REST_SECONDS", 0)
    broken = misbehaving(hang_up)
    async with signing_in(
        directory, **SEARCH, servers=[f"ldaps://127.0.0.1:{broken.port}", directory.tls_url]
    ) as method:
        await method.password("alice", SECRET, "")
        await method.password("alice", SECRET, "")
    assert broken.connections == 2


async def test_a_directory_that_does_not_answer_is_left_alone(misbehaving: Starter, directory: Slapd) -> None:
    """Who signs in by it is told so at once then, and no thread of its waits for it."""
    silent = misbehaving(lambda connection: connection.recv(1))
    async with signing_in(directory, **SEARCH, servers=[f"ldaps://127.0.0.1:{silent.port}"], timeout=0.3) as method:
        for _ in range(breaker.FAILURES):
            await unavailable(method)
        assert "not asked" in await unavailable(method)
        assert silent.connections == breaker.FAILURES


async def test_what_one_user_may_not_do_does_not_close_the_door_for_others(directory: Slapd) -> None:
    """A bind is right, but the entry can not be read by its own user: that is no outage of the server."""
    options = {"bind_template": READER_DN.replace("cn=reader", "cn={user}"), "user_attribute": "cn"}
    async with signing_in(directory, **options) as method:
        for _ in range(2 * breaker.FAILURES):
            assert "not asked" not in (await refusal(method, "admin")).log_text


@pytest.mark.alone
async def test_a_stopped_slapd_and_a_full_queue(servers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts, and never answers: the loop goes on, the queue has an end, and so has each wait."""
    monkeypatch.setattr(breaker, "REST_SECONDS", 0)
    folder = servers_folder / "slapd-stopped"
    folder.mkdir()
    with slapd(folder) as server:
        server.add_user("alice")
        options = {**SEARCH, "servers": [server.tls_url], "timeout": 1, "pool_size": 2}
        async with signing_in(server, **options) as method:
            await method.password("alice", SECRET, "")
            server.process.send_signal(signal.SIGSTOP)
            try:
                start = time.monotonic()
                tries = [asyncio.create_task(unavailable(method)) for _ in range(60)]
                longest, last = 0.0, time.monotonic()
                while not all(task.done() for task in tries):
                    await asyncio.sleep(0.005)
                    longest, last = max(longest, time.monotonic() - last), time.monotonic()
                why = [task.result() for task in tries]
                assert time.monotonic() - start < 6
                assert longest < 0.5
                assert sum("too many sign-ins" in text for text in why) == 60 - 2 - 2 * ldap.QUEUE_PER_THREAD
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert (await method.password("alice", SECRET, "")).user == "alice"


async def test_a_slapd_that_dies_and_comes_back(directory: Slapd, servers_folder: Path) -> None:
    folder = servers_folder / "slapd-dying"
    folder.mkdir()
    with slapd(folder) as server:
        server.add_user("alice")
        async with signing_in(server, **SEARCH, servers=[server.tls_url]) as method:
            await method.password("alice", SECRET, "")
            server.process.kill()
            server.process.wait(10)
            assert "refused" in (await unavailable(method)).lower()


async def test_close_leaves_no_thread(directory: Slapd) -> None:
    async with signing_in(directory, **SEARCH) as method:
        await method.password("alice", SECRET, "")
        assert [one for one in threading.enumerate() if one.name.startswith("auth-ldap")]
    assert not [one for one in threading.enumerate() if one.name.startswith("auth-ldap")]
    assert "shutting down" in await unavailable(method)


def sockets() -> set[str]:
    targets = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            targets.add(str(fd.readlink()))
    return {target for target in targets if target.startswith("socket:")}


async def test_sockets_are_closed(directory: Slapd, misbehaving: Starter) -> None:
    broken = misbehaving(garbage)
    servers = [f"ldaps://127.0.0.1:{broken.port}", directory.tls_url]
    before = sockets()
    async with signing_in(directory, **SEARCH, servers=servers) as method:
        await method.password("alice", SECRET, "")
        await refusal(method, "nobody")
    for thread in broken.threads:
        thread.join(10)
    assert sockets() - before == set()


async def test_as_many_round_trips_for_whoever_is_refused(directory: Slapd, misbehaving: Starter) -> None:
    """Over a long way, each costs more than all that the servers do."""
    requests = 0

    def count(client: socket.socket) -> None:
        nonlocal requests
        with socket.create_connection(("127.0.0.1", directory.port)) as server:

            def answers() -> None:
                with contextlib.suppress(OSError):
                    while data := server.recv(4096):
                        client.sendall(data)

            thread = threading.Thread(target=answers)
            thread.start()
            while data := client.recv(4096):  # one request: the next one is sent after its answer
                requests += 1
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            thread.join()

    counting = misbehaving(count)
    servers = [f"ldap://127.0.0.1:{counting.port}"]
    for mode in (SEARCH, {"search_base": PEOPLE, "bind_dn": None}, TEMPLATE):
        counts = {}
        async with signing_in(directory, **mode, servers=servers, allow_cleartext=True) as method:
            for user in ("alice", "nobody", "ALICE", "twin"):
                requests = 0
                await refusal(method, user, b"wrong")
                for thread in counting.threads:
                    thread.join(10)
                counts[user] = requests
        assert len(set(counts.values())) == 1, counts


# ---- public keys, and users without any credential ----

KEYS = {**SEARCH, "key_attribute": "sshPublicKey"}


@pytest.fixture(scope="module")
def keyed(directory: Slapd) -> Slapd:
    """kim has a key that expired, one for a network, and one for anywhere."""
    lines = [f'expiry-time="20200101Z" {LINE}', f'from="10.0.0.0/8" {LINE}', "no key at all"]
    directory.add_group("app-keys", directory.add_user("kim", sshPublicKey=[*lines, OTHER_LINE]))
    directory.add_user("lea", sshPublicKey="ssh-ed25519 broken")
    return directory


async def key_refusal(method: Ldap, user: str, key: bytes, source_ip: str = "192.0.2.1") -> Refusal:
    with pytest.raises(Refusal) as caught:
        await method.public_key(user, "ssh-ed25519", key, source_ip)
    assert caught.value.log_text.isprintable()
    return caught.value


async def test_the_directorys_keys(keyed: Slapd) -> None:
    async with signing_in(keyed, **KEYS) as method:
        identity = await method.public_key("kim", "ssh-ed25519", OTHER, "192.0.2.1")
        assert identity is not None
        assert (identity.user, identity.method, identity.groups) == ("kim", "ldap-publickey", {"app-keys"})
        assert identity.credential == {"key": fingerprint(OTHER)}
        assert (await method.public_key("kim", "ssh-ed25519", KEY, "10.1.1.1")) is not None
        no = await key_refusal(method, "kim", KEY)
        assert no.reason == Reason.KEY_NOT_ALLOWED
        assert "it expired" in no.log_text
        assert "from=" in no.log_text
        for user in ("alice", "lea"):
            assert (await key_refusal(method, user, KEY)).reason == Reason.KEY_NOT_ALLOWED
        for user in ("nobody", "Kim", "twin", "*", "kim)(uid=*"):
            assert await method.public_key(user, "ssh-ed25519", OTHER, "192.0.2.1") is None


async def test_no_keys_where_they_are_not_asked_for(keyed: Slapd) -> None:
    for how in (SEARCH, TEMPLATE, {**SEARCH, "key_attribute": "description"}):
        async with signing_in(keyed, **how) as method:
            if "key_attribute" in how:
                assert (await key_refusal(method, "kim", OTHER)).reason == Reason.KEY_NOT_ALLOWED
            else:
                assert await method.public_key("kim", "ssh-ed25519", OTHER, "192.0.2.1") is None


async def test_an_outage_is_no_wrong_key(keyed: Slapd) -> None:
    for how in ({"servers": [f"ldaps://127.0.0.1:{free_port()}"]}, {"bind_password": "wrong"}):
        async with signing_in(keyed, **{**KEYS, **how}) as method:
            assert isinstance(await key_refusal(method, "kim", OTHER), Unavailable)


async def test_who_somebody_is_without_a_credential(keyed: Slapd) -> None:
    async with signing_in(keyed, **SEARCH) as method:
        assert method.knows_users
        kim = await method.lookup("kim")
        assert kim is not None
        assert (kim.user, kim.groups) == ("kim", {"app-keys"})
        assert await method.lookup("nobody") is None
    async with signing_in(keyed, **TEMPLATE) as method:
        assert not method.knows_users
        assert await method.lookup("kim") is None
