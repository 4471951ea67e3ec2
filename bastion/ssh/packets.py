"""Channel data by the short way: what most packets of a session are, encrypted with AES-GCM, without asyncssh's general
machinery around each (a cipher object, a timer, log lines, eight copies).

All state stays in asyncssh's own places, and whatever is not plain data, or odd in any way, is left to it untouched. So
this only costs speed where another version has no such places: it is used with the versions that it was read for.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from bastion.ssh.channel import ServerChannel

KNOWN = asyncssh.__version__.startswith("2.24.")
TAG = 16  # bytes, RFC 5647 section 5.2
KEEPALIVE_PRECISION = 1.0  # seconds between settings of the keepalive timer


class _Key:
    """asyncssh's GCM cipher of one direction, whose nonce it goes on counting."""

    def __init__(self, cipher: Any) -> None:
        self.cipher = cipher
        self.aead = AESGCM(cipher._key)


class _Padding:
    """Random bytes (RFC 4253 section 6), a system call for many packets of all connections."""

    def __init__(self) -> None:
        self._pool, self._used = b"", 0

    def take(self, size: int) -> bytes:
        if self._used + size > len(self._pool):
            self._pool, self._used = os.urandom(4096), 0
        self._used += size
        return self._pool[self._used - size : self._used]


_PADDING = _Padding()


class ShortWay:
    """For one connection. `conn` is asyncssh's: its private parts are used, as KNOWN allows."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._sending: _Key | None = None
        self._receiving: _Key | None = None
        self._keepalive_set = 0.0

    def install(self) -> None:
        """Receive by it from now on."""
        self._conn.data_received = self.data_received

    @staticmethod
    def _current(key: _Key | None, encryption: Any) -> _Key | None:
        """The key that is in use now; None where it is none for AES-GCM."""
        if type(encryption) is not GCMEncryption:
            return None
        return key if key is not None and key.cipher is encryption._cipher else _Key(encryption._cipher)

    # To the client.

    def send(self, channel: "ServerChannel", data: bytearray, datatype: int | None) -> int:
        """How many bytes of `data` were sent: all that the window has room for, or none."""
        conn = self._conn
        key = self._sending = self._current(self._sending, conn._send_encryption)
        size = min(len(data), channel._send_window)
        if (
            key is None
            or not size
            or conn._compressor
            or not conn._kex_complete
            or not conn._auth_complete
            or not conn._transport
        ):
            return 0
        if conn._rekey_bytes_sent + len(data) >= conn._rekey_bytes:
            return 0
        if conn._rekey_seconds and time.monotonic() >= conn._rekey_time:
            return 0
        channel._send_window -= size
        out: list[bytes] = []
        for packet in self._packets(channel, data, size, datatype):
            header = len(packet).to_bytes(4, "big")
            out += header, key.aead.encrypt(key.cipher._iv, packet, header)
            key.cipher._update_iv()
            conn._send_seq = (conn._send_seq + 1) & 0xFFFFFFFF
            conn._rekey_bytes_sent += len(packet)
        with contextlib.suppress(ConnectionError):  # as asyncssh's own way has it: connection_lost tells
            conn._transport.writelines(out)
        return size

    def _packets(self, channel: "ServerChannel", data: bytearray, size: int, datatype: int | None) -> Iterator[bytes]:
        """RFC 4254 section 5.2, padded after RFC 4253 section 6: padding_length, payload, padding."""
        assert channel._send_chan is not None  # it is open
        recipient = channel._send_chan.to_bytes(4, "big")
        head = bytes((MSG_CHANNEL_DATA,)) + recipient
        if datatype is not None:
            head = bytes((MSG_CHANNEL_EXTENDED_DATA,)) + recipient + datatype.to_bytes(4, "big")
        for begin in range(0, size, channel._send_pktsize):
            piece = data[begin : min(begin + channel._send_pktsize, size)]
            padding = -(1 + len(head) + 4 + len(piece)) % 16
            padding += 16 if padding < 4 else 0
            yield b"".join((bytes((padding,)), head, len(piece).to_bytes(4, "big"), piece, _PADDING.take(padding)))

    # From the client.

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        conn = self._conn
        conn._inpbuf += data
        if (now := time.monotonic()) - self._keepalive_set > KEEPALIVE_PRECISION:
            self._keepalive_set = now
            conn._reset_keepalive_timer()
        try:
            while conn._transport and conn._recv_handler == conn._recv_pkthdr and not conn._decompressor:
                key = self._receiving = self._current(self._receiving, conn._recv_encryption)
                if key is None:
                    break
                end = self._take_packets(key)
                if not end:
                    return
                conn._inpbuf, rest = conn._inpbuf[:end], conn._inpbuf[end:]
                conn._recv_data()
                conn._inpbuf += rest
        except Exception:
            conn.internal_error()
        if conn._inpbuf and conn._transport:
            conn._recv_data()

    def _take_packets(self, key: _Key) -> int:
        """All up to the first packet that is not for here: the size of that, or 0 if it has not arrived yet."""
        conn = self._conn
        received: bytes = conn._inpbuf
        begin = 0
        try:
            while True:
                length = int.from_bytes(received[begin : begin + 4], "big")
                size = 4 + length + TAG
                if length > conn._max_recv_pktlen:
                    return size
                if begin + size > len(received):
                    return 0
                body = received[begin + 4 : begin + size]
                try:
                    packet = key.aead.decrypt(key.cipher._iv, body, received[begin : begin + 4])
                except InvalidTag:  # asyncssh will see it, too, and say so
                    return size
                if not self._deliver(key, packet):
                    return size
                begin += size
        finally:
            conn._inpbuf = received[begin:] if conn._transport else b""

    def _deliver(self, key: _Key, packet: bytes) -> bool:
        """Data, and room for data (RFC 4254 section 5.2), of a channel that is open for it; False: left to asyncssh."""
        if len(packet) < 16 or packet[0] < 4 or not self._conn._transport:
            return False
        kind, number = packet[1], int.from_bytes(packet[6:10], "big")
        channel = self._conn._channels.get(int.from_bytes(packet[2:6], "big"))
        if channel is None or channel._recv_state != "open":
            return False
        if kind == MSG_CHANNEL_DATA and 10 + number + packet[0] == len(packet) and number <= channel._recv_window:
            self._count(key)
            channel._accept_data(packet[10 : 10 + number])
        elif kind == MSG_CHANNEL_WINDOW_ADJUST and 10 + packet[0] == len(packet):
            self._count(key)
            channel._send_window += number
            channel._flush_send_buf()
        else:
            return False
        return True

    def _count(self, key: _Key) -> None:
        """A packet has been received."""
        key.cipher._update_iv()
        self._conn._recv_seq = (self._conn._recv_seq + 1) & 0xFFFFFFFF
