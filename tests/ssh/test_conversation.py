"""Keyboard-interactive on a connection: what is counted, told and closed, whatever the conversation is about.

The method is made up: it waits where a real one would, and shows what it was asked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest
from asyncssh.auth import MSG_USERAUTH_INFO_RESPONSE
from asyncssh.packet import UInt32
from pydantic import SecretStr

from bastion.audit.database import create_engine, upgrade
from bastion.audit.log import AuditLog
from bastion.auth.authenticator import Authenticator
from bastion.auth.conversation import Challenge, Conversation, Prompt
from bastion.auth.method import Method
from bastion.auth.refusals import refused, unavailable
from bastion.auth.throttle import Throttle
from bastion.auth.users_file import HASHER, User, changing_users
from bastion.config import Auth, Database, LocalUsers, Penalties, Ssh
from bastion.errors import Reason
from bastion.model import Identity
from bastion.session.sessions import Sessions
from bastion.ssh.listener import Listener
from tests.audit.sections import audit
from tests.audit.waiting import eventually

PASSWORD = "correct horse"
GREETING = Challenge("Sign in", "Look at your phone.\nThen come back.")
QUESTIONS = Challenge(prompts=(Prompt("User: ", echo=True), Prompt("Code: ")))


async def until(condition: Callable[[], bool], what: str) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds, what)


class Asking(Method):
    """A greeting, then two questions; carol has nothing to be asked."""

    converses = True

    def __init__(self) -> None:
        self.started = self.waiting = self.closed = 0
        self.waits = False

    async def conversation(self, user: str, source_ip: str) -> Conversation | None:
        return None if user == "carol" else _Questions(self, user)


class _Questions:
    def __init__(self, method: Asking, user: str) -> None:
        self._method = method
        self._user = user

    async def start(self) -> Challenge | Identity:
        self._method.started += 1
        return GREETING

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        if self._method.waits:
            self._method.waiting += 1
            await asyncio.Event().wait()
        match responses:
            case []:
                return QUESTIONS
            case [who, "right"]:
                return Identity(who, "asking")
            case [_, "broken"]:
                raise unavailable("the phone is off")
        raise refused(Reason.WRONG_CREDENTIALS, "a wrong code")

    async def close(self) -> None:
        self._method.closed += 1


class Client(asyncssh.SSHClient):
    """Gives these answers, one list for each challenge that has prompts, and tries as often as there are some."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.seen: list[tuple[str, str, list[tuple[str, bool]]]] = []
        self.connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._answers else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str]:
        self.seen.append((name, instructions, list(prompts)))
        return self._answers.pop(0) if prompts else []


class Server:
    def __init__(self, folder: Path, listener: Listener, method: Asking) -> None:
        self.listener, self.method, self._folder = listener, method, folder

    def connect(self, client: asyncssh.SSHClient, user: str = "alice") -> Any:
        return asyncssh.connect(
            "127.0.0.1",
            self.listener.ports[0],
            username=user,
            client_factory=lambda: client,
            client_keys=None,
            agent_path=None,
            known_hosts=None,
            preferred_auth="keyboard-interactive",
            config=None,
        )

    async def wait_for(self, event: str, **fields: object) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in (self._folder / "audit.jsonl").read_text().splitlines()]
            return [one for one in lines if one["event"] == event and fields.items() <= one.items()]

        await until(lambda: bool(found()), f"{event} {fields}")
        return found()


@asynccontextmanager
async def serving(folder: Path, method: Asking | None, **ssh: Any) -> AsyncIterator[Server]:
    with changing_users(folder / "users.yaml") as users:
        users["carol"] = User(password=HASHER.hash(PASSWORD))
    database = Database(url=SecretStr(f"sqlite+aiosqlite:///{folder}/bastion.db"))
    await upgrade(database)
    engine = create_engine(database)
    throttle = Throttle(Penalties.model_validate({"exempt": ["127.0.0.1/32"]}))
    authenticator = Authenticator(Auth(local=LocalUsers(file=folder / "users.yaml")), throttle)
    if method is not None:
        authenticator._methods.insert(0, method)
        authenticator._takes_passwords = False  # else a password is asked for first
    async with AuditLog(audit(folder / "audit.jsonl"), "b1", engine, folder) as log:
        section = Ssh(listen=("127.0.0.1:0",), **ssh)
        no_sessions = cast(Sessions, SimpleNamespace(recheck_interval=None))  # nothing is opened here
        keys = [asyncssh.generate_private_key("ssh-ed25519")]
        listener = Listener(section, keys, authenticator, no_sessions, throttle, log)
        await listener.start()
        yield Server(folder, listener, method or Asking())
        await listener.close()
    await authenticator.close()
    await engine.dispose()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, Asking()) as started:
        yield started


async def test_what_is_asked_is_shown_and_the_answer_lets_in(server: Server) -> None:
    client = Client(["alice", "right"])
    async with server.connect(client):
        pass
    assert client.seen == [
        ("Sign in", "Look at your phone.\nThen come back.", []),
        ("", "", [("User: ", True), ("Code: ", False)]),
    ]
    assert [(one["user"], one["method"]) for one in await server.wait_for("user.login")] == [("alice", "asking")]
    await until(lambda: server.method.closed == server.method.started == 1, "it is closed")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["alice", "wrong"], "wrong_credentials"),
        (["bob", "right"], "another_user"),
        (["right"], "wrong_credentials"),  # one answer to two questions
        (["alice", "right", "more"], "wrong_credentials"),
    ],
)
async def test_a_no_is_told_and_the_next_right_answer_lets_in(server: Server, answers: list[str], reason: str) -> None:
    async with server.connect(Client(answers, ["alice", "right"])):
        pass
    (failed,) = await server.wait_for("user.login_failed")
    assert (failed["user"], failed["method"], failed["reason"]) == ("alice", "keyboard-interactive", reason)
    await until(lambda: server.method.closed == server.method.started == 2, "it is closed")


async def test_an_outage_ends_the_connection(server: Server) -> None:
    with pytest.raises(asyncssh.DisconnectError, match="sign-in is unavailable, try again"):
        await server.connect(Client(["alice", "broken"], ["alice", "right"]))
    await server.wait_for("user.login_failed", reason="auth_unavailable", detail="the phone is off")
    await until(lambda: server.method.closed == 1, "it is closed")


async def test_guesses_are_counted(server: Server) -> None:
    client = Client(*([["alice", f"guess {i}"] for i in range(9)]))
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        await server.connect(client)
    assert len(client.seen) == 12  # two for each of six tries
    await server.wait_for("user.login_failed", reason="too_many_tries")
    assert len(await server.wait_for("user.login_failed", reason="wrong_credentials")) == 6


async def test_who_has_nothing_to_be_asked_is_asked_for_the_password(server: Server) -> None:
    client = Client(["wrong"], [PASSWORD])
    async with server.connect(client, "carol"):
        pass
    assert client.seen == [("", "", [("Password: ", False)])] * 2
    await server.wait_for("user.login", user="carol", method="local-password")


async def test_a_malformed_name_is_asked_nothing(server: Server) -> None:
    client = Client(["alice", "right"])
    with pytest.raises(asyncssh.PermissionDenied):
        await server.connect(client, "*)(uid=*")
    assert client.seen == []
    await server.wait_for("user.login_failed", reason="malformed_user_name")


async def test_keyboard_interactive_is_not_offered_where_there_is_nothing_to_ask(tmp_path: Path) -> None:
    async with serving(tmp_path, None) as server:
        client = Client([PASSWORD])
        with pytest.raises(asyncssh.PermissionDenied):
            await server.connect(client, "carol")
        assert client.seen == []


async def test_the_conversation_is_closed_when_the_client_leaves_in_the_middle(server: Server) -> None:
    server.method.waits = True
    waiting = asyncio.create_task(server.connect(Client(["alice", "right"])).__aenter__())
    await until(lambda: server.method.waiting == 1, "it is in the middle")
    waiting.cancel()
    await asyncio.wait({waiting})
    await until(lambda: server.method.closed == 1, "it is closed")


async def test_the_conversation_is_closed_when_the_time_to_sign_in_is_over(tmp_path: Path) -> None:
    method = Asking()
    method.waits = True
    async with serving(tmp_path, method, login_grace_time=0.5) as server:
        with pytest.raises(asyncssh.ConnectionLost):
            await server.connect(Client(["alice", "right"]))
        await server.wait_for("connection.close", reason="login_timeout")
        await until(lambda: method.closed == 1, "it is closed")


async def test_a_guess_on_top_of_another_is_no_free_guess(server: Server) -> None:
    """asyncssh drops what it was doing about the first, which then is neither told nor counted."""
    server.method.waits = True
    client = Client(["alice", "wrong"])
    signing_in = asyncio.create_task(server.connect(client).__aenter__())
    await until(lambda: server.method.waiting == 1, "the first is looked at")
    server.method.waits = False
    assert client.connection is not None
    client.connection.send_packet(MSG_USERAUTH_INFO_RESPONSE, UInt32(0), handler=client.connection.auth)
    with pytest.raises(asyncssh.Error):
        await signing_in
    await server.wait_for("user.login_failed", reason="malformed_request", method="keyboard-interactive")
