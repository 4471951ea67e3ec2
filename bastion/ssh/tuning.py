"""What makes asyncssh fast, and quiet: hooks on one connection.

Each only costs speed, or a line of `ssh -v`, where another version has no such place.
"""

import asyncio
import contextlib
import socket
from typing import Any

import asyncssh
from asyncssh.constants import MSG_IGNORE

from bastion.ssh.packets import ShortWay


def acknowledge_quickly(conn: asyncssh.SSHServerConnection) -> None:
    """Delayed acknowledgements cost 40 ms steps in the handshake; Linux has to be told again after each read."""
    sock: socket.socket = conn.get_extra_info("socket")
    received = conn.data_received

    def data_received(data: bytes, datatype: int | None = None) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received(data, datatype)

    conn.data_received = data_received  # type: ignore[method-assign]
    _let_transport_know(conn)


def handshake_is_over(conn: asyncssh.SSHServerConnection, short_way: ShortWay | None) -> None:
    """No more quick acknowledgements; data comes by the short way, where there is one."""
    with contextlib.suppress(AttributeError):
        del conn.data_received
    if short_way is not None:
        short_way.install()
    _let_transport_know(conn)


def _let_transport_know(conn: asyncssh.SSHServerConnection) -> None:
    """uvloop's transports look a protocol's methods up once, when they are given it."""
    transport: asyncio.Transport | None = getattr(conn, "_transport", None)
    if transport is not None:
        transport.set_protocol(conn)


def prefer_gcm(conn: asyncssh.SSHServerConnection) -> None:
    """Offer OpenSSH nothing but AES-GCM, which it has since 6.2 but likes least: the client's order decides.

    ChaCha20 and CTR with a MAC run at half the speed here. Others, such as dropbear, may know nothing else.
    """
    set_extra_info = conn.set_extra_info

    def client_version_known(**kwargs: Any) -> None:  # called before the algorithms are sent
        set_extra_info(**kwargs)
        if str(kwargs.get("client_version", "")).startswith("SSH-2.0-OpenSSH_"):
            offered: list[bytes] = getattr(conn, "_enc_algs", [])
            conn._enc_algs = [name for name in offered if b"-gcm@" in name] or offered

    conn.set_extra_info = client_version_known  # type: ignore[method-assign]


def announce_less(conn: asyncssh.SSHServerConnection) -> None:
    """Of RFC 8308's extensions only server-sig-algs: `ssh -v` calls asyncssh's global-requests-ok unrecognised."""
    extensions: dict[bytes, bytes] = getattr(conn, "_extensions_to_send", {})
    send_all = getattr(conn, "_send_ext_info", None)

    def send_known() -> None:
        extensions.pop(b"global-requests-ok", None)
        if send_all is not None:
            send_all()

    conn._send_ext_info = send_known  # type: ignore[method-assign]


def say_before_version(conn: asyncssh.SSHServerConnection, line: str) -> None:
    """Say a line ahead of the identification string (RFC 4253 section 4.2) and close; `ssh -v` shows it."""
    transport: asyncio.Transport | None = getattr(conn, "_transport", None)
    if transport is None:
        conn.abort()
        return
    transport.write(f"{line}\r\n".encode())
    transport.close()


def send_no_ignore(conn: asyncssh.SSHServerConnection) -> None:
    """asyncssh sends an empty SSH_MSG_IGNORE ahead of most packets, against an attack on CBC ciphers (RFC 4251, 9.3.1).

    There is no CBC here, and each is encrypted and sent by itself: half the work for a key's echo.
    """
    send_packet = conn.send_packet

    def send_other_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_IGNORE:
            send_packet(pkttype, *args, handler=handler)

    conn.send_packet = send_other_packet  # type: ignore[method-assign]
