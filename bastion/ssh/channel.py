"""One SSH channel (RFC 4254 section 6): pty-req, env, shell, exec, window-change and signal, to and from a session."""

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.packet import SSHPacket

from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Identity, Stream, Terminal
from bastion.session.outcome import SIGNALS, Outcome
from bastion.session.session import Session
from bastion.ssh.environment import MAX_BYTES, MAX_VARIABLES
from bastion.ssh.packets import ShortWay

if TYPE_CHECKING:
    from bastion.ssh.connection import Connection

MAX_COMMAND = 128 * 1024 - 1  # bytes: Linux's MAX_ARG_STRLEN, less the NUL that ends it
MAX_SIZE = 65535  # characters: a terminal's size is two unsigned shorts (ioctl_tty(2), winsize)
DEFAULT_SIZE = (80, 24)

# What stock clients start on the other side to copy files: scp -O, rsync, sftp with -s.
_COPIES = re.compile(
    r"\s*(?:exec\s+)?(?:\S*/)?(?:(scp)\s(?:.*\s)?-[a-zA-Z]*[tf]\b|(rsync)\s+--server\b|(sftp)-server\b)"
)
_NO_COPIES = "{} is not possible through this bastion; what a command prints can be piped: ssh ... 'tar c dir' | tar x"


class ServerChannel(asyncssh.SSHServerChannel[bytes]):
    """asyncssh's channel with a limit on `env`, which it keeps without one, and a sentence where it has none."""

    owner: "Channel"
    short_way: ShortWay | None = None

    def _flush_send_buf(self) -> None:
        """Called for all that is written, and when the window has room again."""
        while self.short_way and self._send_buf:
            data, datatype = self._send_buf[0]
            sent = self.short_way.send(self, data, datatype)
            if not sent:
                break
            del data[:sent]
            self._send_buf_len -= sent
            if not data:
                del self._send_buf[0]
        super()._flush_send_buf()  # what is left, and who waits for it

    def _process_env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        return self.owner.env_requested(name, value)

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        command = packet.get_string()
        packet.check_end()
        if self._session_started:
            return False
        self.owner.command_received(command)
        return self._start_session(command="")

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:  # type: ignore[override]  # answers at once
        packet.check_end()
        self.owner.forwarding_requested("agent")
        return False

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        packet.check_end()
        self.owner.eow_received()
        return True

    def _process_x11_req_request(self, packet: SSHPacket) -> bool:
        self.owner.forwarding_requested("X11")
        return False


class Channel(asyncssh.SSHServerSession[bytes]):
    """asyncssh's callbacks on one side, bastion.session.client.Client on the other."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._session: Session | None = None
        self._env: dict[str, str] = {}
        self._env_bytes = 0
        self._terminal: Terminal | None = None
        self._command: str | None = None
        self._refusal: Refusal | None = None
        self._not_forwarded: list[str] = []
        self._sends_no_more = False
        self._takes_no_more = False
        self._writable = True
        self._draining: asyncio.Future[None] | None = None  # resolved when it is no longer `full`

    # What the client asks for.

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def env_requested(self, name: bytes, value: bytes) -> bool:
        """Kept where the configuration lists the name (sshd's AcceptEnv); bounded in number and size."""
        if len(self._env) >= MAX_VARIABLES or self._env_bytes + len(name) + len(value) > MAX_BYTES:
            return False
        accepted = self._connection.accept_env(name, value)
        if accepted is None:
            return False
        self._env[accepted[0]] = accepted[1]
        self._env_bytes += len(name) + len(value)
        return True

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        if not self._connection.identity.may_have_terminal:
            return False
        term = term_type if re.fullmatch(r"[A-Za-z0-9+._-]{1,64}", term_type) else "dumb"
        self._terminal = _terminal(term, term_size[0], term_size[1])
        return True

    def forwarding_requested(self, what: str) -> None:
        if what not in self._not_forwarded:
            self._not_forwarded.append(what)
            self._connection.refused(Reason.NOT_ALLOWED, f"{what} forwarding")

    def shell_requested(self) -> bool:
        return True

    def command_received(self, command: bytes) -> None:
        """One that can not be run is answered with a sentence, not with the request's bare failure."""
        try:
            self._command = _command(command)
        except Refusal as refusal:
            self._refusal = refusal

    def exec_requested(self, command: str) -> bool:
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        if subsystem != "sftp":
            self._connection.refused(Reason.NOT_ALLOWED, f"subsystem {subsystem[:200]}")
            return False
        self._refusal = Refusal(Reason.NOT_ALLOWED, _NO_COPIES.format("sftp"), "subsystem sftp")
        return True

    def session_started(self) -> None:
        for what in self._not_forwarded:
            self.write((Stream.ERROR, f"{what} forwarding is not possible through this bastion.\r\n".encode()))
        try:
            if self._refusal is not None:
                raise self._refusal
            self._session = self._connection.start_session(self, self._command, self._terminal, self._env)
        except Refusal as refusal:
            self._connection.refused(refusal.reason, refusal.log_text)
            self.write((Stream.ERROR, refusal.user_text.encode() + b"\r\n"))
            self.exit(1)

    # What it sends then.

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._session is not None:
            self._session.inbox.feed(data)

    def eof_received(self) -> bool:
        self._sends_no_more = True
        if self._session is not None:
            self._session.inbox.feed_eof()
            self._check_gone(self._session)
        return True  # half-close: the program may still have something to say

    def eow_received(self) -> None:
        """The client takes no more output (OpenSSH's PROTOCOL, section 2.1), as in `ssh host yes | head -1`."""
        self._takes_no_more = True
        if self._session is not None:
            self._session.output_closed()
            self._check_gone(self._session)

    def _check_gone(self, session: Session) -> None:
        """Neither sent nor taken: like sshd, close; a ControlMaster says no more of a client that was killed."""
        if self._takes_no_more and (self._sends_no_more or self._terminal is not None):
            session.client_gone()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal is None:
            return
        self._terminal = _terminal(self._terminal.term, width, height)
        if self._session is not None:
            self._session.resize(self._terminal)

    def signal_received(self, signal: str) -> None:
        if self._session is not None and signal in SIGNALS:
            self._session.signal(signal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        self._writable = True
        self._has_drained()
        self._connection.channel_closed(self)
        if self._session is not None:
            self._session.client_gone()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.drained()

    def drained(self) -> None:
        """The channel's window or the connection takes more again."""
        if not self.full:
            self._has_drained()
            if self._session is not None:
                self._session.client_drained()

    def _has_drained(self) -> None:
        if self._draining is not None:
            self._draining.set_result(None)
            self._draining = None

    def end(self, outcome: Outcome) -> None:
        if self._session is not None:
            self._session.cut(outcome)

    async def recheck(self, identity: Identity) -> None:
        if self._session is not None:
            await self._session.recheck(identity)

    # The session's side: bastion.session.client.Client.

    def write(self, chunk: Chunk) -> None:
        stream, data = chunk
        if self._channel is not None and not self._channel.is_closing():
            datatype = asyncssh.EXTENDED_DATA_STDERR if stream is Stream.ERROR else None
            self._channel.write(data, datatype)

    @property
    def full(self) -> bool:
        return not (self._writable and self._connection.writable)

    async def drain(self) -> None:
        while self.full and self._channel is not None:
            self._draining = self._draining or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._draining)
        if self._channel is None:
            raise ConnectionResetError("the client is gone")

    def pause_reading(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()

    def exit(self, status: int) -> None:
        if self._channel is not None:
            self._channel.exit(status)

    def exit_signal(self, name: str) -> None:
        if self._channel is not None:
            self._channel.exit_with_signal(name)


def _terminal(term: str, columns: int, rows: int) -> Terminal:
    """A size of 0 means unknown (RFC 4254 section 6.2); programs get what they would assume."""
    return Terminal(term, min(columns, MAX_SIZE) or DEFAULT_SIZE[0], min(rows, MAX_SIZE) or DEFAULT_SIZE[1])


def _command(command: bytes) -> str:
    if len(command) > MAX_COMMAND:
        text = f"The command is longer than {MAX_COMMAND} bytes; pipe it as a script: ssh ... sh -s < script"
        raise Refusal(Reason.MALFORMED_REQUEST, text, f"a command of {len(command)} bytes")
    if b"\0" in command:
        raise Refusal(Reason.MALFORMED_REQUEST, "The command has a NUL byte in it.", "NUL in the command")
    try:
        text = command.decode()
    except UnicodeDecodeError as error:
        raise Refusal(
            Reason.MALFORMED_REQUEST,
            "The command is not UTF-8; pipe it as a script instead: ssh ... sh -s < script",
            f"the command is not UTF-8 at byte {error.start}",
        ) from None
    if copies := _COPIES.match(text):
        program = copies[1] or copies[2] or copies[3]
        raise Refusal(Reason.NOT_ALLOWED, _NO_COPIES.format(program), f"{program}: {text[:200]}")
    return text
