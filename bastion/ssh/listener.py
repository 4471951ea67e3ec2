"""The listening sockets: host keys, algorithms, limits before authentication, and an end to accepting."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine, Sequence

import asyncssh
from asyncssh.kex import get_kex_algs
from asyncssh.rsa import RSAKey

from bastion import config
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.auth.authenticator import Authenticator
from bastion.auth.throttle import Offence, Throttle
from bastion.config import host_and_port
from bastion.errors import Refusal
from bastion.session.sessions import Sessions
from bastion.ssh.connection import WINDOW, Connection
from bastion.ssh.signing_in import SignIn

_logger = logging.getLogger(__name__)

# OpenSSH's client says eow@openssh.com (`ssh host yes | head -1`) only to a server of this name (its compat.c).
_VERSION = "OpenSSH_compatible_bastion"

# curve25519 first lets dropbear's guess be right (RFC 4253 section 7); newer clients choose ML-KEM all the same.
# No group of RFC 8268: a stranger would pay nothing to hold up everybody for the milliseconds of its powers (DHEat).
_KEX = ("curve25519-sha256", "mlkem768x25519-sha256", "curve25519-sha256@libssh.org")
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_CHACHA20 = "chacha20-poly1305@openssh.com"
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256")
_SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
# asyncssh has no option that keeps an RSA key from SHA-1. One way of signing for host keys (dropbear's only one): they
# are shared by all connections, and asyncssh notes in them how the next signature is to be made.
RSAKey.sig_algorithms = (b"rsa-sha2-256",)  # type: ignore[assignment]  # mypy takes the length of theirs for its type
RSAKey.all_sig_algorithms = {b"rsa-sha2-256", b"rsa-sha2-512"}

# asyncssh disconnects who types a control character. What a password or token may hold, auth/ says, and logs.
asyncssh.auth.saslprep = str  # type: ignore[attr-defined,assignment]  # a private name; a test says when it is gone

_GRACE = 5.0  # seconds for connections to close at the end


class Listener:
    """Accepts connections and owns what they do beside their sessions."""

    def __init__(
        self,
        section: config.Ssh,
        host_keys: Sequence[asyncssh.SSHKey],
        authenticator: Authenticator,
        sessions: Sessions,
        throttle: Throttle,
        log: AuditLog,
    ) -> None:
        self.section = section
        self.authenticator = authenticator
        self.sessions = sessions
        self.log = log
        self._throttle = throttle
        self._host_keys = host_keys
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        self._connections: set[Connection] = set()
        self._unauthenticated: set[SignIn] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self._closing = False

    async def start(self) -> None:
        """Bind every address; raises OSError naming the one that can't be had."""
        available = {name.decode("ascii") for name in get_kex_algs()}  # ML-KEM needs a new enough cryptography
        for address in self.section.listen:
            host, port = host_and_port(address)
            try:
                acceptor = await asyncssh.create_server(
                    lambda: Connection(self),
                    host,
                    port,
                    config=None,
                    server_host_keys=list(self._host_keys),
                    server_version=_VERSION,
                    kex_algs=[name for name in _KEX if name in available],
                    encryption_algs=[*_CIPHERS, *([_CHACHA20] if self.section.chacha20 else [])],
                    mac_algs=list(_MACS),
                    signature_algs=list(_SIGNATURES),
                    compression_algs=["none"],
                    gss_host=None,
                    agent_forwarding=False,
                    x11_forwarding=False,
                    line_editor=False,
                    encoding=None,
                    window=WINDOW,
                    login_timeout=self.section.login_grace_time,
                    keepalive_interval=self.section.client_alive_interval,
                    keepalive_count_max=self.section.client_alive_count_max,
                    rekey_bytes=self.section.rekey_bytes,
                    backlog=1024,
                )
            except OSError as error:
                await self.close()
                raise OSError(error.errno, f"ssh.listen: {address} can not be bound: {error.strerror}") from error
            self._acceptors.append(acceptor)

    @property
    def ports(self) -> list[int]:
        return [acceptor.get_port() for acceptor in self._acceptors]

    def why_not(self, connection: Connection, source_ip: str) -> str:
        """Admit a connection, or say why not, in sshd's words: its network has a penalty, or MaxStartups."""
        if self._throttle.seconds_left(source_ip):
            return "Not allowed at this time"
        limits, waiting = self.section.max_startups, len(self._unauthenticated)
        if waiting >= limits.start:
            share = (waiting - limits.start) / max(1, limits.full - limits.start)
            chance = limits.rate + (100 - limits.rate) * share
            if waiting >= limits.full or random.random() * 100 < chance:  # noqa: S311 - nothing to guess
                self._drop()
                return "Exceeded MaxStartups"
        self._connections.add(connection)
        self._unauthenticated.add(connection)
        return ""

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th: a flood does not flood the log
            _logger.warning("ssh.max_startups: %d connections dropped since the start", self._dropped)

    def offended(self, source_ip: str, offence: Offence) -> None:
        """A connection ended without anybody signed in."""
        if self._closing:
            return
        seconds = self._throttle.offended(source_ip, offence)
        if seconds:
            self.own(self._log_penalty(source_ip, offence, seconds))

    async def _log_penalty(self, source_ip: str, offence: Offence, seconds: float) -> None:
        with contextlib.suppress(Refusal):  # it is penalised all the same
            await self.log.emit(
                Event.SOURCE_PENALISED,
                source_ip=source_ip,
                network=str(self._throttle.network(source_ip)),
                offence=offence,
                seconds=round(seconds, 3),
            )

    def authenticated(self, connection: SignIn, user: str, source_ip: str) -> None:
        self._unauthenticated.discard(connection)
        self._throttle.passed(user, source_ip)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._unauthenticated.discard(connection)

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in a task that is kept, and awaited at the end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a connection's task failed", exc_info=error)

    async def stop_accepting(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for acceptor in self._acceptors:
            await acceptor.wait_closed()
        self._acceptors.clear()

    async def close(self) -> None:
        """Close every connection; call when the sessions have ended."""
        self._closing = True
        await self.stop_accepting()
        for connection in list(self._connections):
            connection.disconnect("The bastion is shutting down.")
        deadline = asyncio.get_running_loop().time() + _GRACE
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
