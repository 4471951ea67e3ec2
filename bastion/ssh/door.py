"""Where asyncssh lets somebody in: hooks on one connection, so that a key passes the same door as everything else.

Without them, in another version of asyncssh, neither keys nor certificates let anybody in: its word alone will not do.
"""

from typing import Protocol

import asyncssh

from bastion.auth.certificate import is_certificate


class Door(Protocol):
    async def certificate(self, blob: bytes) -> asyncssh.SSHKey | None:
        """The key that has to sign, where the certificate is a good one."""

    async def signed(self) -> bool:
        """The signature is right. Is that enough?"""

    def failing(self) -> bool:
        """A failure is about to be sent. Is it a "partial success"?"""


def ask(conn: asyncssh.SSHServerConnection, door: Door) -> None:
    """asyncssh knows one factor: it would let in whoever has signed, and calls no failure a partial success."""
    validate, send_failure = conn.validate_public_key, conn.send_userauth_failure

    async def validate_public_key(username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        if not await validate(username, key_data, msg, signature):
            return False
        return not msg or await door.signed()

    def send_userauth_failure(partial_success: bool) -> None:
        send_failure(door.failing() or partial_success)

    async def validate_client_certificate(username: str, key_data: bytes) -> asyncssh.SSHKey | None:
        """asyncssh's own takes one without principals for anybody's, and tells nobody why it refuses one."""
        return await door.certificate(key_data) if is_certificate(key_data) else None

    conn.validate_public_key = validate_public_key  # type: ignore[method-assign]
    conn._validate_client_certificate = validate_client_certificate  # type: ignore[method-assign]
    conn.send_userauth_failure = send_userauth_failure  # type: ignore[method-assign]
