"""Who signs in on a connection: asyncssh's callbacks on one side, the authenticator on the other."""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, NoReturn

import asyncssh
from asyncssh.auth import KbdIntChallenge

from bastion.access.address import parse_user_name
from bastion.audit.events import Event
from bastion.audit.log import BoundLog
from bastion.auth.conversation import Challenge, Conversation
from bastion.auth.refusals import TOLD
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Identity
from bastion.ssh import user_certificates

if TYPE_CHECKING:
    from bastion.ssh.listener import Listener

_KBDINT = "keyboard-interactive"


class SignIn(asyncssh.SSHServer):
    """The part of a connection that is about authentication (RFC 4252)."""

    def __init__(self, listener: "Listener", log: BoundLog) -> None:
        self._listener = listener
        self._log = log
        self._conn: asyncssh.SSHServerConnection | None = None
        self._source_ip = ""
        self._user_name: str | None = None  # as the client sent it, address and all
        self._user, self._address = "", ""
        self._tries = 0
        self._key_queries = 0
        self._conversation: Conversation | None = None
        self._asked = False  # is the client to answer?
        self._offered: Identity | None = None  # whose key it says it has
        self._first_factor: Identity | None = None  # who has yet to give a second one
        self._partial = False  # is the next failure one in name only (RFC 4252 section 5.1)?
        self._said = ""  # what was wrong with the last code
        self._identity: Identity | None = None
        self._authenticated = False
        self._excused = False  # it was not the client's fault

    @property
    def authenticated(self) -> bool:
        return self._authenticated

    def begin_auth(self, username: str) -> bool:
        if self._user_name is not None and self._user_name != username:
            raise asyncssh.ProtocolError("Change of username not allowed")  # as sshd has it
        self._user_name = username
        user, plus, address = username.rpartition("+")
        self._user, self._address = (user, address) if plus else (username, "")
        self._log = self._log.bind(user=self._user)
        self._allow_service_request()
        if self._listener.section.banner and self._conn is not None:
            self._conn.send_auth_banner(self._listener.section.banner)
        return True

    def _allow_service_request(self) -> None:
        """paramiko asks for the service anew with each try; sshd lets it, asyncssh would disconnect."""
        if self._conn is not None:
            self._conn._next_service = b"ssh-userauth"

    def public_key_auth_supported(self) -> bool:
        return self._first_factor is None

    def password_auth_supported(self) -> bool:
        return self._first_factor is None

    def kbdint_auth_supported(self) -> bool:
        return self._listener.authenticator.converses

    async def validate_password(self, username: str, password: str) -> bool:
        self._end_conversation()
        await self._count_try()
        try:
            identity = await self._listener.authenticator.password(self._user, password, self._source_ip)
        except Unavailable as refusal:
            await self._unavailable("password", refusal)
        except Refusal as refusal:
            await self._failed("password", refusal)
            return False
        return await self._admit(identity)

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Called for a query and again, with the key that was accepted, for the signature (RFC 4252 section 7)."""
        await self._count_key()
        blob, algorithm = key.public_data, key.algorithm.decode("ascii")
        try:
            self._offered = await self._listener.authenticator.public_key(self._user, algorithm, blob, self._source_ip)
        except Unavailable as refusal:
            await self._unavailable("publickey", refusal)
        except Refusal as refusal:
            await self._count_try()
            await self._failed("publickey", refusal)
            return False
        return True

    async def certificate(self, blob: bytes) -> asyncssh.SSHKey | None:
        """As `validate_public_key`, for a certificate: the key that has to sign."""
        await self._count_key()
        try:
            self._offered = await self._listener.authenticator.certificate(
                self._user, blob, self._source_ip, user_certificates.verify
            )
        except Unavailable as refusal:
            await self._unavailable("certificate", refusal)
        except Refusal as refusal:
            await self._count_try()
            await self._failed("certificate", refusal)
            return None
        return user_certificates.key_in(blob)

    async def _count_key(self) -> None:
        """Queries cost less than tries, but not nothing."""
        self._end_conversation()
        self._offered = None
        self._key_queries += 1
        if self._key_queries > 2 * self._listener.section.max_auth_tries:
            await self._too_many_tries()

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> KbdIntChallenge:
        self._end_conversation()
        await self._count_try()
        if self._first_factor is not None:
            self._conversation = self._listener.authenticator.second_factor(
                self._first_factor, self._source_ip, self._said
            )
        else:
            self._conversation = self._listener.authenticator.converse(self._user, self._source_ip)
        return await self._converse(self._conversation.start())

    async def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> KbdIntChallenge:
        if self._conversation is None or not self._asked:
            # asyncssh dropped what was being done about the answer before: each guess is to be told, and counted
            await self._failed(_KBDINT, Refusal(Reason.MALFORMED_REQUEST, "", "an answer to nothing that was asked"))
            raise asyncssh.ProtocolError("Unexpected keyboard-interactive response")
        return await self._converse(self._conversation.answer(responses))

    async def _converse(self, step: Awaitable[Challenge | Identity]) -> KbdIntChallenge:
        self._asked = False
        try:
            answer = await step
        except Unavailable as refusal:
            await self._unavailable(_KBDINT, refusal)
        except Refusal as refusal:
            self._end_conversation()
            await self._failed(_KBDINT, refusal)
            if refusal.reason in (Reason.WRONG_CODE, Reason.CODE_REPLAYED):  # they may know why
                self._said = refusal.user_text
            return False
        if isinstance(answer, Challenge):
            self._asked = True
            return answer.name, answer.instruction, "", [(prompt.text, prompt.echo) for prompt in answer.prompts]
        self._end_conversation()
        if await self._admit(answer):
            return True
        self._partial = False  # it goes on at once
        self._conversation = self._listener.authenticator.second_factor(answer, self._source_ip)
        return await self._converse(self._conversation.start())

    def _end_conversation(self) -> None:
        """Also where the client has turned to another method in the middle of it."""
        conversation, self._conversation, self._asked = self._conversation, None, False
        if conversation is not None:
            self._listener.own(conversation.close())

    async def signed(self) -> bool:
        """The signature of the key that was offered is right (`door.ask` sees to it)."""
        return self._offered is not None and await self._admit(self._offered)

    async def _admit(self, identity: Identity) -> bool:
        """The one door: who comes by whatever way passes here, and stops where a second factor is to be given."""
        try:
            if await self._listener.authenticator.wants_second_factor(identity, lambda: self._rules_want(identity)):
                self._first_factor, self._partial = identity, True
                return False
        except Refusal as refusal:  # there is no other way for them to try
            await self._unavailable(identity.method, refusal)
        self._identity = identity
        return True

    async def _rules_want(self, identity: Identity) -> bool:
        """A second factor, for what is behind this address."""
        try:
            _, address = parse_user_name(self._user_name or "")
        except Refusal:  # nothing is
            return False
        return await self._listener.sessions.want_second_factor(identity, address)

    def failing(self) -> bool:
        """A failure is about to be sent: is it a "partial success" (RFC 4252 section 5.1)?"""
        self._allow_service_request()
        partial, self._partial = self._partial, False
        return partial

    async def auth_completed(self) -> None:
        if self._identity is None:  # asyncssh did not ask the door: it may have changed
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, "The bastion failed.")
        self._authenticated = True
        self._listener.authenticated(self, self._identity.user, self._source_ip)
        try:
            await self._log.emit(
                Event.USER_LOGIN,
                method=self._identity.method,
                groups=sorted(self._identity.groups),
                second_factor=self._identity.second_factor,
                **self._identity.credential,
            )
            self._listener.own(self.watch())
        except Refusal as refusal:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, refusal.user_text) from None

    async def watch(self) -> None:
        """See that who has signed in still may."""

    async def _count_try(self) -> None:
        self._tries += 1
        if self._tries > self._listener.section.max_auth_tries:
            await self._too_many_tries()

    async def _too_many_tries(self) -> NoReturn:
        refusal = Refusal(Reason.TOO_MANY_TRIES, "Too many authentication failures")
        await self._failed("any", refusal)
        raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, refusal.user_text)

    async def _unavailable(self, method: str, refusal: Refusal) -> NoReturn:
        """Not a wrong password: the client is not to ask for another one."""
        self._excused = True
        await self._failed(method, refusal)
        raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, refusal.user_text)

    async def _failed(self, method: str, refusal: Refusal) -> None:
        if refusal.reason in TOLD and self._conn is not None:
            self._conn.send_auth_banner(f"{refusal.user_text}\n")  # a failure has no words of its own
        # asyncssh announces every user name but the empty one
        log = self._log if self._user_name is not None else self._log.bind(user="")
        try:
            await log.emit(Event.USER_LOGIN_FAILED, method=method, reason=refusal.reason, detail=refusal.log_text)
        except Refusal as unlogged:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, unlogged.user_text) from None
