"""One conversation with one LDAP server, over before its deadline: ldap3 and its errors stay behind this door."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ldap3
from ldap3.core import results
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn, parse_dn

from bastion.errors import printable

# What a server answers to a bind when it means "no, not you": RFC 4511 appendix A, and 389's and AD's habits
_NO = frozenset(
    {
        results.RESULT_INVALID_CREDENTIALS,
        results.RESULT_INAPPROPRIATE_AUTHENTICATION,  # the entry has no password
        results.RESULT_NO_SUCH_OBJECT,
        results.RESULT_CONSTRAINT_VIOLATION,  # locked, password expired
        results.RESULT_UNWILLING_TO_PERFORM,  # inactivated
    }
)


class DirectoryError(Exception):
    """The server can not be reached, can not be trusted or gave no answer to the question: try the next one."""


class NoAnswerError(DirectoryError):
    """The server gives no answer to anybody, as far as can be seen: it can be left alone for a while."""


class BindRefused(Exception):
    """The server says no to this name and password; the text is the server's, safe to be logged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a search found; attribute names in lower case."""

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]]

    def values(self, attribute: str) -> tuple[bytes, ...]:
        return self.attributes.get(attribute.lower(), ())


class _Connection(ldap3.Connection):
    """Every use of the socket waits no longer than what is left until the deadline.

    ldap3 has a time limit for each read only: a server that sends a byte now and then would hold a thread for ever.
    """

    def __init__(self, server: ldap3.Server, deadline: float) -> None:
        self._deadline = deadline
        self._socket: Any = None
        super().__init__(
            server,
            auto_referrals=False,  # a referral would be sent the user's password
            auto_range=False,
            auto_escape=False,  # it guesses whether a value is escaped
            check_names=False,
            read_only=True,
        )

    @property
    def socket(self) -> Any:
        if self._socket is not None:
            left = self._deadline - time.monotonic()
            self._socket.settimeout(max(left, 0.001))
            if left <= 0:
                self._shut_down()
        return self._socket

    @socket.setter
    def socket(self, new: Any) -> None:
        if self._socket is not None:
            self._socket.close()  # ldap3 forgets those that it could not connect
        if new is not None:
            new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # over TLS else 40 ms for a delayed ack
        self._socket = new

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Tls(ldap3.Tls):
    """ssl's own check of the host's name, SNI, and certificates that are loaded once."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=context.verify_mode)
        self._context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        plain = connection.socket
        connection.socket = self._context.wrap_socket(
            plain, server_hostname=connection.server.host, do_handshake_on_connect=False
        )
        connection.socket.do_handshake()


def tls_context(ca_file: Path | None, verify: bool) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one) where `ca_file` holds no certificates."""
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Directory:
    """Binds and searches; every method raises DirectoryError."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def bind(self, dn: str, password: bytes) -> None:
        """Simple bind (RFC 4513 section 5.1.3). Raises BindRefused."""
        if not dn or not password:
            raise ValueError("an unauthenticated bind (RFC 4513 section 5.1.2) would succeed for anybody")
        self._connection.rebind(dn, password, authentication=ldap3.SIMPLE, read_server_info=False)
        self._check(_NO, "bind")

    def bind_anonymously(self) -> None:
        self._connection.user = self._connection.password = None
        self._connection.rebind(authentication=ldap3.ANONYMOUS, read_server_info=False)
        self._check(frozenset(), "anonymous bind")

    def search(
        self, base: str, filter_: str, attributes: Sequence[str], *, only_base: bool = False, limit: int = 0
    ) -> list[Entry]:
        """What is found below (or at) `base`; `limit` + 1 of them where there are more than `limit`."""
        self._connection.search(
            base,
            filter_,
            search_scope=ldap3.BASE if only_base else ldap3.SUBTREE,
            dereference_aliases=ldap3.DEREF_NEVER,
            attributes=list(attributes),
            size_limit=limit + 1 if limit else 0,
        )
        entries = [
            Entry(found["dn"], {name.lower(): tuple(values) for name, values in found["raw_attributes"].items()})
            for found in self._connection.response or ()
            if found["type"] == "searchResEntry"
        ]
        if not 0 < limit < len(entries):  # else it may say sizeLimitExceeded
            self._check(frozenset(), f"search below {base}")
        return entries

    def _check(self, no: frozenset[int], what: str) -> None:
        result = self._connection.result
        if result["result"] == results.RESULT_SUCCESS:
            return
        said = printable(f"{result['description']} ({result['result']}) {result['message']}".strip())
        if result["result"] in no:
            raise BindRefused(said)
        if result["result"] in (results.RESULT_BUSY, results.RESULT_UNAVAILABLE):
            raise NoAnswerError(f"{what}: {said}")
        raise DirectoryError(f"{what}: {said}")


@contextlib.contextmanager
def directory(url: str, tls: ssl.SSLContext, *, start_tls: bool, seconds: float) -> Iterator[Directory]:
    """A conversation with the server at `url`, whole within `seconds`; raises DirectoryError, also inside."""
    connection = None
    try:
        parts = urlsplit(url)
        server = ldap3.Server(
            parts.hostname or "",
            port=parts.port or (636 if parts.scheme == "ldaps" else 389),
            use_ssl=parts.scheme == "ldaps",
            tls=_Tls(tls),
            get_info=ldap3.NONE,
            connect_timeout=seconds,
        )
        connection = _Connection(server, time.monotonic() + seconds)
        connection.open(read_server_info=False)
        if start_tls and not connection.start_tls(read_server_info=False):
            raise DirectoryError("StartTLS was refused")
        yield Directory(connection)
    except (DirectoryError, BindRefused):
        raise
    except (LDAPException, OSError, ValueError, LookupError, TypeError) as error:
        # the last ones: answers that are no LDAP
        raise NoAnswerError(printable(f"{type(error).__name__}: {error}")) from error
    finally:
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                connection.unbind()
            connection.socket = None


def in_filter(value: str) -> str:
    """`value` inside a filter (RFC 4515 section 3)."""
    return str(escape_filter_chars(value))


def in_dn(value: str) -> str:
    """`value` inside a DN (RFC 4514 section 2.4)."""
    return str(escape_rdn(value)).replace("\\\0", "\\00")  # ldap3 leaves NUL as it is


def name_in_dn(dn: str, attribute: str) -> str | None:
    """The value of `attribute` in the first part of `dn`; None where it has none, or is no DN."""
    try:
        parts = parse_dn(dn)
    except (LDAPException, ValueError, IndexError):
        return None
    for kind, value, separator in parts:
        if kind.lower() == attribute.lower():
            return _unescaped(value)
        if separator != "+":
            break
    return None


def _unescaped(value: str) -> str | None:
    """The text of an attribute value in a DN (RFC 4514 section 3); None for the hexadecimal form of what is no text."""

    def one(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if len(match[1]) == 2 else match[1]

    try:
        text = re.sub(rb"\\([0-9A-Fa-f]{2}|.)", one, value.encode(), flags=re.DOTALL).decode()
    except UnicodeDecodeError:
        return None
    return None if value.startswith("#") else text
