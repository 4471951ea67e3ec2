"""Signing in, in front of stock clients: passwords, keys, a real LDAP directory, and the limits before that."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.e2e.conftest import another
from tests.servers.bastion import PASSWORD, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import accepts, running, wait_until
from tests.servers.slapd import PASSWORD as LDAP_PASSWORD
from tests.servers.slapd import PEOPLE, READER_DN, Slapd, slapd

BUSY = "alice+web.busy.1"
UNAVAILABLE = b"sign-in is unavailable, try again"
MEGABYTE = 1 << 20


def password_command(bastion: Bastion, login: str, *words: str) -> list[str]:
    """A stock ssh that asks for the password once."""
    options = ("-o", "BatchMode=no", "-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1")
    command = bastion.ssh_command(login, *words, key="bob")  # a key that is there, for whoever it is
    return [*command[:1], *options, *command[1:]]  # of ssh's options the first counts


def by_password(
    bastion: Bastion, login: str, password: str, *words: str, verbose: bool = False
) -> "subprocess.CompletedProcess[bytes]":
    command = password_command(bastion, login, *words)
    if verbose:
        command[1:1] = ["-o", "LogLevel=INFO"]
    return bastion.with_password(password, command)


def test_a_password_and_a_key(bastion: Bastion) -> None:
    assert by_password(bastion, BUSY, PASSWORD, "echo in").stdout == b"in\n"
    bastion.wait_for_event("user.login", user="alice", method="local-password")
    assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"
    bastion.wait_for_event("user.login", user="alice", method="local-publickey")


def test_a_wrong_password_and_an_unknown_user_read_the_same(bastion: Bastion) -> None:
    said = {}
    assert by_password(bastion, BUSY, PASSWORD, "true").returncode == 0  # and the host key is known
    for user, password in (("alice", "wrong"), ("nobody", "wrong"), ("nobody", PASSWORD), ("alice", "")):
        done = by_password(bastion, f"{user}+web.busy.1", password, "true", verbose=True)
        said[user, password] = done.stderr.replace(user.encode(), b"USER"), done.stdout, done.returncode
    assert len(set(said.values())) == 1
    assert b"Permission denied (publickey,password)." in said["nobody", "wrong"][0]
    bastion.wait_for_event("user.login_failed", user="alice", reason="wrong_credentials", method="password")
    bastion.wait_for_event("user.login_failed", user="nobody", reason="unknown_user", method="password")
    bastion.wait_for_event("user.login_failed", user="alice", reason="empty_password", method="password")


def test_anothers_key_and_an_unknown_user_read_the_same(bastion: Bastion) -> None:
    said = set()
    for user in ("alice", "nobody"):
        done = bastion.ssh(f"{user}+web.busy.1", "true", key="bob")
        said.add((done.stderr.replace(user.encode(), b"USER"), done.stdout, done.returncode))
        bastion.wait_for_event("user.login_failed", user=user, method="publickey")
    assert len(said) == 1


def test_no_password_is_in_any_file(bastion: Bastion) -> None:
    by_password(bastion, BUSY, "a-secret-mistake", "true")
    bastion.wait_for_event("user.login_failed", user="alice", reason="wrong_credentials")
    for path in bastion.folder.rglob("*"):
        assert not path.is_file() or b"a-secret-mistake" not in path.read_bytes()


# Limits.


async def test_many_passwords_on_one_connection(bastion: Bastion) -> None:
    before = len(bastion.events("user.login_failed"))

    class Guesser(asyncssh.SSHClient):
        guesses = 0

        def password_auth_requested(self) -> str:
            self.guesses += 1
            return f"guess {self.guesses}"

    guesser = Guesser()
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        await asyncssh.connect(
            "127.0.0.1",
            bastion.port,
            username="alice",
            client_factory=lambda: guesser,
            client_keys=None,
            agent_path=None,
            known_hosts=None,
        )
    reasons = [event["reason"] for event in bastion.events("user.login_failed")[before:]]
    assert reasons == 6 * ["wrong_credentials"] + ["too_many_tries"]
    assert guesser.guesses == 7


@pytest.mark.parametrize(("others", "let_in"), [(5, True), (8, False)])
def test_many_keys(bastion: Bastion, tmp_path: Path, others: int, *, let_in: bool) -> None:
    offered: list[str] = []
    for i in range(others):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", f"{tmp_path}/key{i}"], check=True)
        offered += ["-i", f"{tmp_path}/key{i}"]
    command = bastion.ssh_command(BUSY, "echo in")
    done = subprocess.run([*command[:1], *offered, *command[1:]], capture_output=True, timeout=30, check=False)
    if let_in:
        assert done.stdout == b"in\n"
    else:
        assert b"Too many authentication failures" in done.stderr
        assert done.returncode == 255
        bastion.wait_for_event("user.login_failed", user="alice", reason="too_many_tries")


def test_a_client_that_asks_for_the_service_anew_with_each_try(bastion: Bastion) -> None:
    """paramiko: a key that is not hers, then her password, on one connection."""
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        options = {"key_filename": f"{bastion.folder}/bob_key", "look_for_keys": False, "allow_agent": False}
        client.connect("127.0.0.1", bastion.port, BUSY, PASSWORD, timeout=20, **options)
        source_port = client.get_transport().sock.getsockname()[1]
        _, stdout, _ = client.exec_command("echo in")
        assert stdout.read() == b"in\n"
    connection = bastion.events("connection.open", source_port=source_port)[-1][
        "connection_id"
    ]  # a port may come again
    tried = [event["event"] for event in bastion.events(connection_id=connection) if event["event"].startswith("user")]
    assert tried == ["user.login_failed", "user.login"]
    with contextlib.closing(paramiko.Transport(("127.0.0.1", bastion.port))) as transport:
        transport.start_client(timeout=15)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_none("alice")
        for _ in range(3):
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password("alice", "wrong")
        assert transport.auth_password("alice", PASSWORD) == []


def test_another_user_name_on_the_same_connection(bastion: Bastion) -> None:
    for other in ("bob", "alice+web.busy.1", "Alice"):
        with contextlib.closing(paramiko.Transport(("127.0.0.1", bastion.port))) as transport:
            source_port = transport.sock.getsockname()[1]
            transport.start_client(timeout=15)
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password("alice", "wrong")
            with pytest.raises(paramiko.SSHException):
                transport.auth_password(other, PASSWORD)
            assert not transport.is_authenticated()
        event = bastion.wait_for_event("connection.close", source_port=source_port)
        assert (event["user"], event["detail"]) == ("alice", "Change of username not allowed")


async def test_three_hundred_channels_on_one_connection(bastion: Bastion) -> None:
    connection = await asyncssh.connect(
        "127.0.0.1", bastion.port, username=BUSY, client_keys=[f"{bastion.folder}/alice_key"], known_hosts=None
    )
    async with connection:
        opened = await asyncio.gather(
            *(connection.create_process("cat", encoding=None) for _ in range(300)), return_exceptions=True
        )
        running_ones = [one for one in opened if isinstance(one, asyncssh.SSHClientProcess)]
        refused = [one for one in opened if isinstance(one, asyncssh.ChannelOpenError)]
        assert (len(running_ones), len(refused)) == (10, 290)
        assert {(one.code, one.reason) for one in refused} == {
            (asyncssh.OPEN_RESOURCE_SHORTAGE, "at most 10 sessions on one connection")
        }
        for i, process in enumerate(running_ones):
            process.stdin.write(b"%d" % i)
            process.stdin.write_eof()
        for i, process in enumerate(running_ones):
            assert (await process.wait()).stdout == b"%d" % i
        assert (await connection.run("echo usable")).stdout == "usable\n"
    event = await asyncio.to_thread(bastion.wait_for_event, "access.denied", reason="too_many_sessions")
    assert event["user"] == "alice"


def test_login_grace_time_and_banner(folder: Path, engine: Engine) -> None:
    with serving(
        folder, engine.url, ssh={"login_grace_time": 1.5, "banner": "Authorised use only, grüße.\n"}
    ) as bastion:
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", bastion.port))) for _ in range(3)]
            waiting[1].sendall(b"SSH-2.0-half")
            waiting[2].sendall(b"SSH-2.0-whole\r\n")
            transport = stack.enter_context(contextlib.closing(paramiko.Transport(("127.0.0.1", bastion.port))))
            transport.start_client(timeout=15)  # has exchanged keys, and says no more
            for client in waiting:
                client.settimeout(20)
                while client.recv(4096):
                    pass
            wait_until(lambda: not transport.is_active(), "the connection is closed")
        wait_until(lambda: len(bastion.events("connection.close", reason="login_timeout")) == 4, "the log says why")
        command = bastion.ssh_command(BUSY, "sleep 2; echo still in")
        done = subprocess.run(
            [*command[:1], "-o", "LogLevel=INFO", *command[1:]], capture_output=True, timeout=30, check=False
        )
        assert done.stdout == b"still in\n"
        assert done.stderr.decode().count("Authorised use only, grüße.") == 1


def test_connections_that_say_nothing(folder: Path, engine: Engine) -> None:
    """MaxStartups: the more of them, the fewer are let in; once it is full, none."""
    with serving(folder, engine.url, ssh={"max_startups": {"start": 10, "rate": 30, "full": 50}}) as bastion:
        assert bastion.ssh(BUSY, "true").returncode == 0
        before = bastion.rss()

        def connect() -> socket.socket | None:
            """None where it was dropped."""
            client = socket.create_connection(("127.0.0.1", bastion.port), timeout=20)
            with contextlib.suppress(ConnectionResetError):
                if client.recv(100).startswith(b"SSH-2.0-"):
                    return client
            client.close()
            return None

        def hold(number: int, held: contextlib.ExitStack) -> int:
            """Keep so many open; how often that was tried."""
            count = tries = 0
            while count < number:
                tries += 1
                if (client := connect()) is not None:
                    held.enter_context(client)
                    count += 1
            return tries

        with contextlib.ExitStack() as held:
            assert hold(10, held) == 10  # fewer than start: nobody is dropped
            tries = hold(40, held)
            assert tries > 80  # dropped at random, and more and more of them
            assert [connect() for _ in range(50)] == [None] * 50
            done = bastion.ssh(BUSY, "true")
            assert done.returncode == 255
            assert b"closed" in done.stderr or b"reset" in done.stderr
            assert bastion.rss() - before < 16 * MEGABYTE
            messages = [line for line in (folder / "bastion.log").read_text().splitlines() if "max_startups" in line]
            assert 1 < len(messages) < 15  # a flood of connections is no flood of the log
        # All have left: whoever comes now is let in.
        wait_until(lambda: bastion.ssh(BUSY, "echo in").stdout == b"in\n", "a login", 60)
        with contextlib.ExitStack() as held:
            hold(30, held)
            wait_until(lambda: bastion.ssh(BUSY, "echo in").stdout == b"in\n", "a login beside thirty others", 60)


# A real LDAP directory.


@pytest.fixture(scope="session")
def directory(servers_folder: Path) -> Iterator[Slapd]:
    """carol owns the app shop, dave nothing."""
    folder = servers_folder / "logins-slapd"
    folder.mkdir()
    with slapd(folder) as server:
        server.add_group("app-shop", server.add_user("carol"))
        server.add_group("app-shop.eu", server.add_user("dave"))
        yield server


@pytest.fixture(scope="session")
def corporate(servers_folder: Path, bastion: Bastion, engine: Engine, directory: Slapd) -> Iterator[Bastion]:
    """A bastion whose users are in the directory, beside alice who is local."""
    folder = servers_folder / "logins"
    folder.mkdir()
    engine.app("shop", "front", 1, owners="nobody")
    ldap = {
        "servers": [directory.tls_url],
        "ca_file": str(directory.ca_file),
        "bind_dn": READER_DN,
        "bind_password": LDAP_PASSWORD,
        "search_base": PEOPLE,
        "timeout": 2,
    }
    access = {"group_template": "app-{app}"}
    with serving(another(bastion, folder), engine.url, auth={"ldap": ldap}, access=access) as started:
        yield started


def ldap_login(bastion: Bastion, login: str, password: str = LDAP_PASSWORD) -> "subprocess.CompletedProcess[bytes]":
    return by_password(bastion, login, password, "echo in")


def test_the_directorys_group_lets_in_and_keeps_out(corporate: Bastion) -> None:
    assert ldap_login(corporate, "carol+shop.front.1").stdout == b"in\n"
    login = corporate.wait_for_event("user.login", user="carol")
    assert (login["method"], login["groups"]) == ("ldap", ["app-shop"])
    assert corporate.wait_for_event("session.start", user="carol")["rule"] == "group:app-shop"
    done = ldap_login(corporate, "dave+shop.front.1")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"There is no container shop.front.1 that you may enter." in done.stderr
    corporate.wait_for_event("access.denied", user="dave", reason="not_owner")
    assert ldap_login(corporate, "carol+web.busy.1").returncode == 1


def test_wrong_and_unknown_read_the_same_in_the_directory(corporate: Bastion) -> None:
    said = set()
    for user, reason in (("carol", "wrong_credentials"), ("mallory", "unknown_user"), ("alice", "wrong_credentials")):
        done = ldap_login(corporate, f"{user}+shop.front.1", "wrong")
        said.add((done.stderr.replace(user.encode(), b"USER"), done.returncode))
        corporate.wait_for_event("user.login_failed", user=user, reason=reason)
    assert len(said) == 1


METACHARACTERS = ["*", "c*", "carol)(uid=*", "*)(|(uid=*", "(&", "\\63arol", f"uid=carol,{PEOPLE}", "CAROL", "carol "]


@pytest.mark.parametrize("user", METACHARACTERS)
def test_a_user_name_is_no_filter(corporate: Bastion, user: str) -> None:
    with contextlib.closing(paramiko.Transport(("127.0.0.1", corporate.port))) as transport:
        transport.start_client(timeout=15)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password(f"{user}+shop.front.1", LDAP_PASSWORD)
    reason = corporate.wait_for_event("user.login_failed", user=user)["reason"]
    assert reason in {"malformed_user_name", "unknown_user"}


def test_a_flood_of_bytes_while_the_directory_is_asked(corporate: Bastion, directory: Slapd) -> None:
    """What comes before the answer to a sign-in is not taken without limit."""
    before = corporate.rss()
    with contextlib.closing(paramiko.Transport(("127.0.0.1", corporate.port))) as transport:
        transport.start_client(timeout=15)
        os.kill(directory.process.pid, signal.SIGSTOP)
        try:
            signing_in = threading.Thread(target=sign_in, args=(transport, "carol"))
            signing_in.start()
            ignored = paramiko.Message()
            ignored.add_byte(bytes([2]))  # SSH_MSG_IGNORE
            ignored.add_string(bytes(200_000))
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                while signing_in.is_alive() and corporate.rss() - before < 16 * MEGABYTE:
                    transport._send_user_message(ignored)  # type: ignore[attr-defined]  # no public way
            assert corporate.rss() - before < 16 * MEGABYTE
        finally:
            os.kill(directory.process.pid, signal.SIGCONT)
        signing_in.join(15)
    corporate.wait_for_event("connection.close", detail="Too much data before authentication")
    assert by_password(corporate, BUSY, PASSWORD, "echo in").stdout == b"in\n"


def sign_in(transport: paramiko.Transport, user: str) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError):
        transport.auth_password(user, LDAP_PASSWORD)


def test_while_the_directory_is_away(corporate: Bastion, directory: Slapd) -> None:
    def refused_as_unavailable() -> None:
        before = len(corporate.events("user.login_failed"))
        done = ldap_login(corporate, "carol+shop.front.1")
        assert UNAVAILABLE in done.stderr
        assert b"Permission denied" not in done.stderr
        assert (done.stdout, done.returncode) == (b"", 255)
        (event,) = corporate.events("user.login_failed")[before:]
        assert (event["user"], event["reason"]) == ("carol", "auth_unavailable")
        # who is local gets in, and their wrong password is one
        assert by_password(corporate, BUSY, PASSWORD, "echo in").stdout == b"in\n"

    os.kill(directory.process.pid, signal.SIGSTOP)  # takes connections, and answers nothing
    try:
        refused_as_unavailable()
    finally:
        os.kill(directory.process.pid, signal.SIGCONT)
    assert ldap_login(corporate, "carol+shop.front.1").stdout == b"in\n"
    directory.process.terminate()
    directory.process.wait(15)
    refused_as_unavailable()
    arguments = directory.process.args
    assert isinstance(arguments, list)
    with running(arguments, directory.folder / "slapd.log"):
        wait_until(lambda: accepts(directory.tls_port), "slapd answers again")
        assert ldap_login(corporate, "carol+shop.front.1").stdout == b"in\n"
        assert ldap_login(corporate, "carol+shop.front.1", "wrong").returncode == 255
        assert corporate.events("user.login_failed")[-1]["reason"] == "wrong_credentials"
