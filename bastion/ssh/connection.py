"""One SSH connection: its limits, who authenticates on it, and what may be opened."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, NoReturn

import asyncssh
from asyncssh.auth import KbdIntChallenge

from bastion.access.address import parse_user_name
from bastion.audit.events import Event
from bastion.auth.conversation import Challenge, Conversation
from bastion.auth.refusals import TOLD
from bastion.auth.throttle import Offence
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity, Terminal
from bastion.session.client import Request
from bastion.session.session import Session
from bastion.ssh import environment, signing_in, tuning
from bastion.ssh.channel import Channel, ServerChannel

if TYPE_CHECKING:
    from bastion.ssh.listener import Listener

WINDOW = 1 << 20  # bytes a client may send before they are taken, for each channel
MAX_BEFORE_LOGIN = 256 * 1024  # bytes; some kB are usual
_KBDINT = "keyboard-interactive"
_NO_FORWARDING = "port forwarding is not possible through this bastion"


class Connection(asyncssh.SSHServer):
    """asyncssh's callbacks for one connection. `writable` is clear while the client takes nothing."""

    def __init__(self, listener: "Listener") -> None:
        self.id = secrets.token_hex(8)
        self.writable = asyncio.Event()
        self.writable.set()
        self._listener = listener
        self._log = listener.log.bind(connection_id=self.id)
        self._began = time.monotonic()
        self._conn: asyncssh.SSHServerConnection | None = None
        self._source_ip = ""
        self._last_words: str | None = None
        self._user_name: str | None = None  # as the client sent it, address and all
        self._user, self._address = "", ""
        self._tries = 0
        self._key_queries = 0
        self._conversation: Conversation | None = None
        self._asked = False  # is the client to answer?
        self._offered: Identity | None = None  # whose key it says it has
        self._first_factor: Identity | None = None  # who has yet to give a second one
        self._partial = False  # is the next failure one in name only (RFC 4252 section 5.1)?
        self._said = ""  # what was wrong with the last code
        self._identity: Identity | None = None
        self._authenticated = False
        self._excused = False  # it was not the client's fault
        self._channels: set[Channel] = set()

    @property
    def authenticated(self) -> bool:
        return self._authenticated

    # The transport.

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        source_ip, source_port = conn.get_extra_info("peername")[:2]
        if sentence := self._listener.why_not(self, source_ip):
            tuning.say_before_version(conn, sentence)
            return
        self._source_ip = source_ip
        self._log = self._log.bind(source_ip=self._source_ip, source_port=source_port)
        # asyncssh ignores the transport's flow control; a client with a huge window would fill the memory.
        conn.pause_writing = self.writable.clear  # type: ignore[method-assign]
        conn.resume_writing = self._resume_writing  # type: ignore[method-assign]
        self._limit_before_login(conn)
        tuning.acknowledge_quickly(conn)
        if not self._listener.section.chacha20:  # an old OpenSSH may be what it is for
            tuning.prefer_gcm(conn)
        tuning.announce_less(conn)
        tuning.send_no_ignore(conn)
        signing_in.ask_the_door(conn, self)
        self._listener.own(self._open())

    def _resume_writing(self) -> None:
        self.writable.set()
        for channel in tuple(self._channels):
            channel.drained()

    def _limit_before_login(self, conn: asyncssh.SSHServerConnection) -> None:
        """While a password is looked up, asyncssh keeps whatever comes."""
        received = conn.data_received
        size = 0

        def data_received(data: bytes, datatype: int | None = None) -> None:
            nonlocal size
            size += len(data)
            if self._authenticated or size <= MAX_BEFORE_LOGIN:
                received(data, datatype)
            else:
                self.disconnect("Too much data before authentication")

        conn.data_received = data_received  # type: ignore[method-assign]

    async def _open(self) -> None:
        try:
            await self._log.emit(Event.CONNECTION_OPEN)
        except Refusal:
            self.disconnect("sign-in is unavailable, try again")

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        self._end_conversation()
        self._listener.forget(self)
        if self._source_ip:
            timed_out = str(exc) == "Login timeout expired"  # asyncssh has no exception of its own for it
            offence = self._offence(timed_out)
            if offence is not None:
                self._listener.offended(self._source_ip, offence)
            self._listener.own(self._close(exc, offence, timed_out=timed_out))

    def _offence(self, timed_out: bool) -> Offence | None:
        if self._authenticated or self._excused:
            return None
        if timed_out:
            return Offence.GRACE_EXCEEDED
        return Offence.AUTHFAIL if self._tries or self._key_queries else Offence.NOAUTH

    async def _close(self, exc: Exception | None, offence: Offence | None, *, timed_out: bool) -> None:
        reason = type(exc).__name__ if exc is not None else "disconnect"
        if timed_out:
            reason = Reason.LOGIN_TIMEOUT
        seconds = round(time.monotonic() - self._began, 3)
        with contextlib.suppress(Refusal):  # it is closed already
            await self._log.emit(
                Event.CONNECTION_CLOSE,
                reason=reason,
                detail=str(exc) if exc is not None else self._last_words,
                seconds=seconds,
                offence=offence,
            )

    def disconnect(self, sentence: str) -> None:
        """Say why (RFC 4253 section 11.1) and close."""
        self._last_words = sentence
        if self._conn is not None:
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, sentence)

    # Who are you?

    def begin_auth(self, username: str) -> bool:
        if self._user_name is not None and self._user_name != username:
            raise asyncssh.ProtocolError("Change of username not allowed")  # as sshd has it
        self._user_name = username
        user, plus, address = username.rpartition("+")
        self._user, self._address = (user, address) if plus else (username, "")
        self._log = self._log.bind(user=self._user)
        self._allow_service_request()
        if self._listener.section.banner and self._conn is not None:
            self._conn.send_auth_banner(self._listener.section.banner)
        return True

    def _allow_service_request(self) -> None:
        """paramiko asks for the service anew with each try; sshd lets it, asyncssh would disconnect."""
        if self._conn is not None:
            self._conn._next_service = b"ssh-userauth"

    def public_key_auth_supported(self) -> bool:
        return self._first_factor is None

    def password_auth_supported(self) -> bool:
        return self._first_factor is None

    def kbdint_auth_supported(self) -> bool:
        return self._listener.authenticator.converses

    async def validate_password(self, username: str, password: str) -> bool:
        self._end_conversation()
        await self._count_try()
        try:
            identity = await self._listener.authenticator.password(self._user, password, self._source_ip)
        except Unavailable as refusal:
            await self._unavailable("password", refusal)
        except Refusal as refusal:
            await self._failed("password", refusal)
            return False
        return await self._admit(identity)

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Called for a query and again, with the key that was accepted, for the signature (RFC 4252 section 7)."""
        self._end_conversation()
        self._offered = None
        self._key_queries += 1
        if self._key_queries > 2 * self._listener.section.max_auth_tries:
            await self._too_many_tries()
        blob, algorithm = key.public_data, key.algorithm.decode("ascii")
        try:
            self._offered = await self._listener.authenticator.public_key(self._user, algorithm, blob, self._source_ip)
        except Unavailable as refusal:
            await self._unavailable("publickey", refusal)
        except Refusal as refusal:
            await self._count_try()
            await self._failed("publickey", refusal)
            return False
        return True

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> KbdIntChallenge:
        self._end_conversation()
        await self._count_try()
        if self._first_factor is not None:
            self._conversation = self._listener.authenticator.second_factor(
                self._first_factor, self._source_ip, self._said
            )
        else:
            self._conversation = self._listener.authenticator.converse(self._user, self._source_ip)
        return await self._converse(self._conversation.start())

    async def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> KbdIntChallenge:
        if self._conversation is None or not self._asked:
            # asyncssh dropped what was being done about the answer before: each guess is to be told, and counted
            await self._failed(_KBDINT, Refusal(Reason.MALFORMED_REQUEST, "", "an answer to nothing that was asked"))
            raise asyncssh.ProtocolError("Unexpected keyboard-interactive response")
        return await self._converse(self._conversation.answer(responses))

    async def _converse(self, step: Awaitable[Challenge | Identity]) -> KbdIntChallenge:
        self._asked = False
        try:
            answer = await step
        except Unavailable as refusal:
            await self._unavailable(_KBDINT, refusal)
        except Refusal as refusal:
            self._end_conversation()
            await self._failed(_KBDINT, refusal)
            if refusal.reason in (Reason.WRONG_CODE, Reason.CODE_REPLAYED):  # they may know why
                self._said = refusal.user_text
            return False
        if isinstance(answer, Challenge):
            self._asked = True
            return answer.name, answer.instruction, "", [(prompt.text, prompt.echo) for prompt in answer.prompts]
        self._end_conversation()
        if await self._admit(answer):
            return True
        self._partial = False  # it goes on at once
        self._conversation = self._listener.authenticator.second_factor(answer, self._source_ip)
        return await self._converse(self._conversation.start())

    def _end_conversation(self) -> None:
        """Also where the client has turned to another method in the middle of it."""
        conversation, self._conversation, self._asked = self._conversation, None, False
        if conversation is not None:
            self._listener.own(conversation.close())

    async def signed(self) -> bool:
        """The signature of the key that was offered is right (`signing_in.ask_the_door` calls this)."""
        return self._offered is not None and await self._admit(self._offered)

    async def _admit(self, identity: Identity) -> bool:
        """The one door: who comes by whatever way passes here, and stops where a second factor is to be given."""
        try:
            if await self._listener.authenticator.wants_second_factor(identity, lambda: self._rules_want(identity)):
                self._first_factor, self._partial = identity, True
                return False
        except Refusal as refusal:  # there is no other way for them to try
            await self._unavailable(identity.method, refusal)
        self._identity = identity
        return True

    async def _rules_want(self, identity: Identity) -> bool:
        """A second factor, for what is behind this address."""
        try:
            _, address = parse_user_name(self._user_name or "")
        except Refusal:  # nothing is
            return False
        return await self._listener.sessions.want_second_factor(identity, address)

    def failing(self) -> bool:
        """A failure is about to be sent: is it a "partial success" (RFC 4252 section 5.1)?"""
        self._allow_service_request()
        partial, self._partial = self._partial, False
        return partial

    async def auth_completed(self) -> None:
        if self._identity is None:  # asyncssh did not ask the door: it may have changed
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, "The bastion failed.")
        self._authenticated = True
        self._listener.authenticated(self, self._identity.user, self._source_ip)
        try:
            await self._log.emit(
                Event.USER_LOGIN,
                method=self._identity.method,
                groups=sorted(self._identity.groups),
                second_factor=self._identity.second_factor,
            )
        except Refusal as refusal:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, refusal.user_text) from None

    async def _count_try(self) -> None:
        self._tries += 1
        if self._tries > self._listener.section.max_auth_tries:
            await self._too_many_tries()

    async def _too_many_tries(self) -> NoReturn:
        refusal = Refusal(Reason.TOO_MANY_TRIES, "Too many authentication failures")
        await self._failed("any", refusal)
        raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, refusal.user_text)

    async def _unavailable(self, method: str, refusal: Refusal) -> NoReturn:
        """Not a wrong password: the client is not to ask for another one."""
        self._excused = True
        await self._failed(method, refusal)
        raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, refusal.user_text)

    async def _failed(self, method: str, refusal: Refusal) -> None:
        if refusal.reason in TOLD and self._conn is not None:
            self._conn.send_auth_banner(f"{refusal.user_text}\n")  # a failure has no words of its own
        # asyncssh announces every user name but the empty one
        log = self._log if self._user_name is not None else self._log.bind(user="")
        try:
            await log.emit(Event.USER_LOGIN_FAILED, method=method, reason=refusal.reason, detail=refusal.log_text)
        except Refusal as unlogged:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, unlogged.user_text) from None

    # What may be opened?

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], asyncssh.SSHServerSession[bytes]]:
        assert self._conn is not None
        if len(self._channels) >= self._listener.section.max_sessions:
            self.refused(Reason.TOO_MANY_SESSIONS, f"more than {self._listener.section.max_sessions} sessions")
            text = f"at most {self._listener.section.max_sessions} sessions on one connection"
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, text)
        channel = Channel(self)
        self._channels.add(channel)
        made = ServerChannel(
            self._conn, asyncio.get_running_loop(), True, False, False, 0, 0, None, "strict", WINDOW, 32768
        )
        made.owner = channel
        return made, channel

    def channel_closed(self, channel: Channel) -> None:
        self._channels.discard(channel)

    def accept_env(self, name: bytes, value: bytes) -> tuple[str, str] | None:
        return environment.accept(name, value, self._listener.section.accept_env)

    def start_session(
        self, channel: Channel, command: str | None, terminal: Terminal | None, env: dict[str, str]
    ) -> Session:
        """The session that runs on `channel`; raises Refusal where the address can not be understood."""
        assert self._conn is not None
        assert self._identity is not None
        assert self._user_name is not None
        assert self._authenticated
        tuning.handshake_is_over(self._conn)
        request = Request(
            identity=self._identity,
            address=parse_user_name(self._user_name)[1],
            command=command,
            terminal=terminal,
            env=env,
            connection_id=self.id,
            source_ip=self._source_ip,
        )
        return self._listener.sessions.start(request, channel, self._log)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> NoReturn:
        self._refuse_forwarding(f"direct-tcpip to {dest_host}:{dest_port}")

    def unix_connection_requested(self, dest_path: str) -> NoReturn:
        self._refuse_forwarding(f"direct-streamlocal to {dest_path}")

    def tun_requested(self, unit: int | None) -> NoReturn:
        self._refuse_forwarding("tun")

    def tap_requested(self, unit: int | None) -> NoReturn:
        self._refuse_forwarding("tap")

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        self.refused(Reason.NOT_ALLOWED, f"tcpip-forward of {listen_host}:{listen_port}")
        return False

    def unix_server_requested(self, listen_path: str) -> bool:
        self.refused(Reason.NOT_ALLOWED, f"streamlocal-forward of {listen_path}")
        return False

    def _refuse_forwarding(self, what: str) -> NoReturn:
        self.refused(Reason.NOT_ALLOWED, what)
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, _NO_FORWARDING)

    def refused(self, reason: Reason, detail: str) -> None:
        """Remember what was asked for and not done."""
        self._listener.own(self._log_refused(reason, detail))

    async def _log_refused(self, reason: Reason, detail: str) -> None:
        try:
            await self._log.emit(Event.ACCESS_DENIED, address=self._address, reason=reason, detail=detail)
        except Refusal as unlogged:
            self.disconnect(unlogged.user_text)
