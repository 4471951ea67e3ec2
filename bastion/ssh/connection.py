"""One SSH connection: its limits, who authenticates on it, and what may be opened."""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import asyncssh

from bastion.access.address import parse_user_name
from bastion.audit.events import Event
from bastion.auth.throttle import Offence
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity, Terminal
from bastion.session.client import Request
from bastion.session.outcome import Outcome, Status
from bastion.session.session import Session
from bastion.ssh import door, environment, packets, tuning
from bastion.ssh.channel import Channel, ServerChannel
from bastion.ssh.signing_in import SignIn

if TYPE_CHECKING:
    from bastion.ssh.listener import Listener

_logger = logging.getLogger(__name__)

WINDOW = 1 << 20  # bytes a client may send before they are taken, for each channel
MAX_BEFORE_LOGIN = 256 * 1024  # bytes; some kB are usual
END_GRACE = 5.0  # seconds for the sessions' last words
_NO_FORWARDING = "port forwarding is not possible through this bastion"


class Connection(SignIn):
    """asyncssh's callbacks for one connection. Not `writable` while the client takes nothing."""

    def __init__(self, listener: "Listener") -> None:
        self.id = secrets.token_hex(8)
        self.writable = True
        super().__init__(listener, listener.log.bind(connection_id=self.id))
        self._began = time.monotonic()
        self._last_words: str | None = None
        self._channels: set[Channel] = set()
        self._short_way: packets.ShortWay | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: Refusal | None = None  # why no session may begin any more

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
        conn.pause_writing = self._pause_writing  # type: ignore[method-assign]
        conn.resume_writing = self._resume_writing  # type: ignore[method-assign]
        self._limit_before_login(conn)
        tuning.acknowledge_quickly(conn)
        if not self._listener.section.chacha20:  # an old OpenSSH may be what it is for
            tuning.prefer_gcm(conn)
        tuning.announce_less(conn)
        tuning.send_no_ignore(conn)
        if packets.KNOWN:
            self._short_way = packets.ShortWay(conn)
        door.ask(conn, self)
        self._listener.own(self._open())

    def _pause_writing(self) -> None:
        self.writable = False

    def _resume_writing(self) -> None:
        self.writable = True
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
        self.writable = True
        self._gone.set_result(None)
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
        made.short_way = self._short_way
        return made, channel

    def channel_closed(self, channel: Channel) -> None:
        self._channels.discard(channel)

    def accept_env(self, name: bytes, value: bytes) -> tuple[str, str] | None:
        return environment.accept(name, value, self._listener.section.accept_env)

    @property
    def identity(self) -> Identity:
        assert self._identity is not None
        return self._identity

    def start_session(
        self, channel: Channel, command: str | None, terminal: Terminal | None, env: dict[str, str]
    ) -> Session:
        """The session that runs on `channel`; raises Refusal where the address can not be understood."""
        assert self._conn is not None
        assert self._identity is not None
        assert self._user_name is not None
        assert self._authenticated
        if self._over is not None:
            raise self._over
        tuning.handshake_is_over(self._conn, self._short_way)
        if self._identity.force_command is not None:
            env = env if command is None else {**env, "SSH_ORIGINAL_COMMAND": command}
            command = self._identity.force_command
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

    # May it stay?

    async def watch(self) -> None:
        """End what the credential, or who its user is by now, no longer allows; until the client has gone."""
        expires = self.identity.expires if self._listener.authenticator.disconnect_expired else None
        interval = self._listener.sessions.recheck_interval
        while (expires is not None or interval is not None) and self._over is None:
            left = math.inf if expires is None else (expires - datetime.now(UTC)).total_seconds()
            # within the hour: a clock may be set
            await asyncio.wait({self._gone}, timeout=max(0.0, min(left, interval or math.inf, 3600.0)))
            if self._gone.done():
                return
            if expires is not None and expires <= datetime.now(UTC):
                text = "What you signed in with has expired: sign in anew."
                await self._end(Refusal(Reason.CREDENTIAL_EXPIRED, text, f"expired at {expires.isoformat()}"))
            elif interval is not None:
                await self._recheck()

    async def _recheck(self) -> None:
        try:
            self._identity = await self._listener.authenticator.renew(self.identity, self._source_ip)
        except Unavailable as outage:
            _logger.warning("connection %s can not be checked again: %s", self.id, outage.log_text)
        except Refusal as refusal:
            await self._end(Refusal(refusal.reason, "You may no longer sign in here.", refusal.log_text))
        else:
            for channel in tuple(self._channels):
                await channel.recheck(self._identity)

    async def _end(self, why: Refusal) -> None:
        """The sessions with a sentence, then the connection."""
        self._over = why
        for channel in tuple(self._channels):
            channel.end(Outcome(Status.REVOKED, reason=why.reason, sentence=why.user_text, log_text=why.log_text))
        await self._log_refused(why.reason, why.log_text)
        deadline = time.monotonic() + END_GRACE
        while self._channels and not self._gone.done() and time.monotonic() < deadline:
            await asyncio.wait({self._gone}, timeout=0.05)
        self.disconnect(why.user_text)

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
