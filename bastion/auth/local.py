"""Users in a file: password (argon2) or public key."""

import os
import secrets
from datetime import UTC, datetime

from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from bastion.auth.certificate import fingerprint
from bastion.auth.method import Method
from bastion.auth.refusals import refused, unavailable
from bastion.auth.users_file import HASHER, User, UsersFile, UsersFileError, authorized_keys
from bastion.auth.workers import Workers
from bastion.config import LocalUsers
from bastion.errors import Reason
from bastion.model import Identity

HASHING_THREADS = min(4, os.cpu_count() or 1)  # each needs the hash's memory, 19 MiB
SECONDS = 20  # for reading the file, and for a hash; the queue included


class Local(Method):
    """The method of the users file; it decides about everybody who is in it."""

    makes = frozenset({"local-password", "local-publickey"})
    knows_users = True

    def __init__(self, config: LocalUsers) -> None:
        self._file = UsersFile(config.file)
        self._reading = Workers("users file", 1, 256)
        self._hashing = Workers("argon2", HASHING_THREADS, 128)  # apart: keys do not wait for floods of passwords
        self._decoy = HASHER.hash(secrets.token_hex())

    async def password(self, user: str, password: bytes, source_ip: str) -> Identity | None:
        found = await self._user(user)
        if found is None:
            return None
        right = await self._is_right(found.password or self._decoy, password)
        if found.password is None:
            raise refused(Reason.WRONG_CREDENTIALS, f"{user}: has no password, only keys (local)")
        if not right:
            raise refused(Reason.WRONG_CREDENTIALS, f"{user}: wrong password (local)")
        if found.disabled:
            raise refused(Reason.USER_DISABLED, f"{user}: right password, but disabled in the users file")
        return Identity(user, "local-password", frozenset(found.groups))

    async def public_key(self, user: str, key_type: str, key_blob: bytes, source_ip: str) -> Identity | None:
        found = await self._user(user)
        if found is None:
            return None
        keys, problems = authorized_keys(found)
        same = [key for key in keys if key.is_key(key_type, key_blob)]
        whys = [key.why_not(source_ip, datetime.now(UTC)) for key in same]
        if not whys:
            also = f" ({'; '.join(problems)})" if problems else ""
            raise refused(Reason.KEY_NOT_ALLOWED, f"{user}: {key_type[:64]} key is not theirs{also}")
        if None not in whys:
            why = "; ".join(why for why in whys if why)
            raise refused(Reason.KEY_NOT_ALLOWED, f"{user}: the key is theirs, but {why}")
        if found.disabled:
            raise refused(Reason.USER_DISABLED, f"{user}: right key, but disabled in the users file")
        credential = {"key": fingerprint(key_blob)}
        return Identity(user, "local-publickey", frozenset(found.groups), credential=credential, key=key_blob)

    async def lookup(self, user: str) -> Identity | None:
        found = await self._user(user)
        if found is not None and found.disabled:
            raise refused(Reason.USER_DISABLED, f"{user}: disabled in the users file")
        return None if found is None else Identity(user, "local", frozenset(found.groups))

    async def vet(self, identity: Identity) -> None:
        found = await self._user(identity.user)
        if found is not None and found.disabled:
            raise refused(Reason.USER_DISABLED, f"{identity.user}: {identity.method}, but disabled in the users file")

    async def decoy(self) -> None:
        await self._is_right(self._decoy, b"a password that nobody has")

    async def close(self) -> None:
        await self._reading.close()
        await self._hashing.close()

    async def _user(self, user: str) -> User | None:
        try:
            users = await self._reading.run(SECONDS, self._file.users)
        except UsersFileError as error:
            raise unavailable(f"users file: {error}") from None
        return users.get(user)

    async def _is_right(self, password_hash: str, password: bytes) -> bool:
        try:
            return await self._hashing.run(SECONDS, lambda: HASHER.verify(password_hash, password))
        except VerifyMismatchError:
            return False
        except (
            VerificationError,
            InvalidHashError,
        ) as error:  # such as no memory: not a wrong password
            raise unavailable(f"argon2: {error}") from None
