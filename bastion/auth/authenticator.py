"""Who are you? The path around the ways to sign in that is the same for all of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from bastion.auth.certificate import Reader, fingerprint
from bastion.auth.certificates import Certificates, RevokedKeys, Verify
from bastion.auth.conversation import Ask, Challenge, Conversation, PasswordOr, Prompt
from bastion.auth.lain import Lain
from bastion.auth.ldap import Ldap
from bastion.auth.local import Local
from bastion.auth.method import Method
from bastion.auth.oidc import Oidc
from bastion.auth.passwords import EmptyPasswordError, prepared
from bastion.auth.refusals import refused
from bastion.auth.throttle import Throttle
from bastion.auth.tokens import OPENSSH_READS, Token, token_in
from bastion.auth.totp import Totp
from bastion.auth.user_name import why_malformed
from bastion.config import Auth
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity

# The least time that a refusal takes, in seconds: longer than it usually takes to find out.
PASSWORD_FAILURE = 0.25
KEY_FAILURE = 0.01
MOST_ADDED = 4.0  # seconds


def methods(config: Auth) -> list[Method]:
    """Those that the configuration names, in the order in which they are asked. Raises ConfigError."""
    made: list[Method] = []
    if config.local is not None:
        made.append(Local(config.local))
    if config.ldap is not None:
        made.append(Ldap(config.ldap))
    if config.oidc is not None:
        made.append(Oidc(config.oidc))
    if config.lain is not None:
        made.append(Lain(config.lain))
    return made


class Authenticator:
    """Asks each configured method in turn; the first that knows the user decides.

    An outage ends the search: whether that method would have known the user can not be told, so no other may decide.
    """

    def __init__(self, config: Auth, throttle: Throttle, totp: Totp | None = None) -> None:
        """Raises ConfigError."""
        self._throttle = throttle
        self._methods = methods(config)
        self._takes_passwords = config.local is not None or config.ldap is not None
        self._revoked = RevokedKeys(config.revoked_keys)
        self._certificates = Certificates(config.certificates, self._revoked) if config.certificates else None
        self._totp = totp
        self.disconnect_expired = config.disconnect_expired

    async def password(self, user: str, password: str, source_ip: str) -> Identity:
        """Who signs in with `password`, or with a token in its place.

        Raises Refusal, or Unavailable where a server or file has to be mended.
        """
        async with _no_sooner_than(PASSWORD_FAILURE):
            _check_user_name(user)
            return await self._password(user, password, source_ip)

    async def public_key(self, user: str, key_type: str, key_blob: bytes, source_ip: str) -> Identity:
        """Who has the key `key_blob` (RFC 4253 section 6.6; `key_type` is the name at its start).

        Whether the client really has it, its signature has to show. Raises as `password` does.
        """
        async with _no_sooner_than(KEY_FAILURE):
            _check_user_name(user)
            if (await self._revoked.now()).revokes_key(key_blob):
                raise refused(Reason.KEY_REVOKED, f"{user}: the key {fingerprint(key_blob)} is revoked")
            for method in self._methods:
                identity = await method.public_key(user, key_type, key_blob, source_ip)
                if identity is not None:
                    return await self._let_in(user, identity)
            raise _unknown(user)

    async def certificate(self, user: str, blob: bytes, source_ip: str, verify: Verify) -> Identity:
        """Who has this certificate: its word is enough, but where users are known, this has to be one of them.

        `verify` says whether a key (1st) signed something (2nd) with a signature (3rd). Raises as `password` does.
        """
        async with _no_sooner_than(KEY_FAILURE):
            _check_user_name(user)
            if self._certificates is None:
                raise refused(Reason.CERTIFICATE_NOT_ALLOWED, f"{user}: there is no section auth.certificates")
            identity = await self._certificates.check(user, blob, source_ip, verify)
            known = await self._lookup(user)
            return await self._let_in(user, identity if known is None else replace(identity, groups=known.groups))

    async def renew(self, identity: Identity, source_ip: str) -> Identity:
        """Who signed in a while ago, as they are now. Raises Refusal where they may no longer, and Unavailable."""
        user, key = identity.user, identity.key
        known: Identity | None = None
        if identity.method == "certificate":
            if self._certificates is None or not await self._certificates.still(identity):
                raise refused(Reason.KEY_REVOKED, f"{user}: the certificate was revoked")
            known = await self._lookup(user)
        elif key is not None:
            known = await self.public_key(user, Reader(key).text(), key, source_ip)
        else:
            for method in self._methods:
                if identity.method in method.makes and method.knows_users:
                    known = await method.lookup(user)
                    if known is None:
                        raise _unknown(user)
        return await self._let_in(user, identity if known is None else replace(identity, groups=known.groups))

    async def _lookup(self, user: str) -> Identity | None:
        """Who that is; None where nobody is known. Raises Refusal where others are, and Unavailable."""
        for method in self._methods:
            if (identity := await method.lookup(user)) is not None:
                return identity
        if any(method.knows_users for method in self._methods):
            raise _unknown(user)
        return None

    @property
    def converses(self) -> bool:
        """Is there more to ask than a password? Where there is not, keyboard-interactive is not offered."""
        return self._totp is not None or any(method.converses for method in self._methods)

    def converse(self, user: str, source_ip: str) -> Conversation:
        """Ask by keyboard-interactive: what the first method that has something to ask asks, else for the password."""
        return _Conversation(self, user, lambda: self._conversation(user, source_ip))

    async def wants_second_factor(self, identity: Identity, rules_want: Callable[[], Awaitable[bool]]) -> bool:
        """Is the password, key... of `identity` not enough? `rules_want`: does a rule of ownership say so?

        Raises Unavailable, and Refusal where they can give no second factor and may not do without.
        """
        if self._totp is None or identity.second_factor is not None:
            return False
        return await self._totp.is_needed(identity, rules_want)

    def second_factor(self, identity: Identity, source_ip: str, said: str = "") -> Conversation:
        """Ask for it; `said` is what the user is to read about the try before."""
        assert self._totp is not None
        totp, throttle = self._totp, self._throttle
        whose = f"{identity.user} (code)"  # no user's name: guesses at a password do not hold up codes

        async def check(code: str) -> Identity:
            async with throttle.turn(whose, source_ip):
                complete = await totp.check(identity, code)
            throttle.passed(whose, source_ip)
            return complete

        async def ask() -> Conversation:
            return Ask(Prompt("Verification code: "), check, said)

        return _Conversation(self, identity.user, ask)

    async def close(self) -> None:
        """Return when the methods' threads are done; sign-ins that come now are Unavailable."""
        await asyncio.gather(self._revoked.close(), *(method.close() for method in self._methods))

    async def _password(self, user: str, password: str, source_ip: str) -> Identity:
        try:
            token = token_in(password)
            if token is not None:
                return await self._token(user, token, source_ip)
        except Unavailable:
            raise
        except Refusal as no:
            cut = f"; it may have been cut short: OpenSSH's client reads {OPENSSH_READS} characters of an answer"
            raise refused(no.reason, no.log_text + (cut if len(password) == OPENSSH_READS else "")) from None
        async with self._throttle.turn(user, source_ip):
            return await self._ask_methods(user, _checked_password(user, password), source_ip)

    async def _ask_methods(self, user: str, secret: bytes, source_ip: str) -> Identity:
        refusal: Refusal | None = None
        idle = list(self._methods)  # these have not spent the time of a wrong password
        for method in self._methods:
            try:
                identity = await method.password(user, secret, source_ip)
            except Unavailable:
                raise
            except Refusal as no:
                idle.remove(method)
                refusal = no
                if no.reason is not Reason.UNKNOWN_USER:
                    break
            else:
                if identity is not None:
                    return await self._let_in(user, identity)
        await self._wait_as_long(idle, known=refusal is not None and refusal.reason is not Reason.UNKNOWN_USER)
        raise refusal or _unknown(user)

    async def _token(self, user: str, token: Token, source_ip: str) -> Identity:
        for method in self._methods:
            identity = await method.token(user, token, source_ip)
            if identity is not None:
                return await self._let_in(user, identity)
        raise _unknown(user)

    async def _let_in(self, user: str, identity: Identity) -> Identity:
        """A credential of bob never opens alice's door, and who is kept out by one method is not let in by another."""
        if identity.user != user:
            raise refused(Reason.ANOTHER_USER, f"{user}: {identity.method} says that this is {identity.user}")
        for method in self._methods:
            await method.vet(identity)
        return identity

    async def _conversation(self, user: str, source_ip: str) -> Conversation:
        async def check(password: str) -> Identity:
            return await self._password(user, password, source_ip)

        for method in self._methods:
            conversation = await method.conversation(user, source_ip)
            if conversation is not None:
                return PasswordOr(check, conversation) if self._takes_passwords else conversation
        return Ask(Prompt("Password: "), check)

    async def _wait_as_long(self, idle: Sequence[Method], *, known: bool) -> None:
        """Wrong password or unknown, with this method or that: all methods have worked on it in the end."""
        for method in idle:
            try:
                await method.decoy()
            except Unavailable:
                if not known:  # as for a user that the method knows
                    raise


class _Conversation:
    """Around every conversation: the name is looked at first, the identity last, and a no takes its time."""

    def __init__(self, authenticator: Authenticator, user: str, find: Callable[[], Awaitable[Conversation]]) -> None:
        self._authenticator = authenticator
        self._user = user
        self._find = find
        self._prompts = 0
        self._inner: Conversation | None = None

    async def start(self) -> Challenge | Identity:
        async with _no_sooner_than(PASSWORD_FAILURE):
            _check_user_name(self._user)
            self._inner = await self._find()
            return await self._checked(await self._inner.start())

    async def answer(self, responses: Sequence[str]) -> Challenge | Identity:
        async with _no_sooner_than(PASSWORD_FAILURE):
            assert self._inner is not None
            if len(responses) != self._prompts:
                raise refused(Reason.WRONG_CREDENTIALS, f"{len(responses)} answers to {self._prompts} prompts")
            return await self._checked(await self._inner.answer(responses))

    async def close(self) -> None:
        if self._inner is not None:
            await self._inner.close()

    async def _checked(self, step: Challenge | Identity) -> Challenge | Identity:
        if isinstance(step, Identity):
            return await self._authenticator._let_in(self._user, step)
        self._prompts = len(step.prompts)
        return step


def _check_user_name(user: str) -> None:
    problem = why_malformed(user)
    if problem is not None:
        raise refused(Reason.MALFORMED_USER_NAME, problem)


def _checked_password(user: str, password: str) -> bytes:
    try:
        return prepared(password)
    except EmptyPasswordError as error:
        raise refused(Reason.EMPTY_PASSWORD, f"{user}: {error}") from None
    except ValueError as error:
        raise refused(Reason.WRONG_CREDENTIALS, f"{user}: {error}") from None


def _unknown(user: str) -> Refusal:
    return refused(Reason.UNKNOWN_USER, f"{user}: no such user, or none who may sign in this way")


@contextlib.asynccontextmanager
async def _no_sooner_than(seconds: float) -> AsyncIterator[None]:
    """A refusal leaves after `seconds`, or twice, four times... as many: how long it took is no hint.

    After ensure_minimum_time_since in OpenSSH's auth2.c; minutes in a browser are not followed by as many more.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        yield
    except Unavailable:
        raise
    except Refusal:
        spent = clock() - start
        while seconds < spent:
            seconds = min(2 * seconds, seconds + MOST_ADDED)
        await asyncio.sleep(seconds - spent)
        raise
