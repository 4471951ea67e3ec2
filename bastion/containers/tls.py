"""TLS to an engine, apart from any socket."""

import contextlib
import ssl

RECORD = 16 << 10  # bytes: no record holds more (RFC 8446 section 5.1)


class Tls:
    """TLS over memory buffers, so that close_notify can be sent while reading goes on (RFC 8446 section 6.1)."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_hostname=host)

    def handshake(self, data: bytes) -> bool:
        """Is it done, after these bytes of the engine's? What is to be sent is in `outgoing`."""
        self._in.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
            return True
        return False

    def decrypt(self, data: bytes) -> tuple[bytes, bool]:
        """What the engine said, and whether it will say no more."""
        self._in.write(data)
        plain, ended = [], False
        try:
            while piece := self._object.read(RECORD):
                plain.append(piece)
            ended = True
        except ssl.SSLZeroReturnError:  # instead of b"" where close_notify has been sent
            ended = True
        except ssl.SSLWantReadError:  # the rest of a record is still to come
            pass
        return b"".join(plain), ended

    def encrypt(self, data: bytes) -> bytes:
        self._object.write(data)
        return self._out.read()

    def close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):  # it wants the engine's close_notify too, which comes later
            self._object.unwrap()
        return self._out.read()

    def outgoing(self) -> bytes:
        return self._out.read()
