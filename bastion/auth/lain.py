"""Tokens of LAIN's single sign-on: opaque, so it is asked whose they are."""

import secrets

from bastion.auth.method import Method
from bastion.auth.refusals import refused, unavailable
from bastion.auth.tokens import Token
from bastion.config import LainSso as Section
from bastion.errors import Reason, printable
from bastion.model import Identity
from bastion.remote.http import JsonClient, RemoteError
from bastion.remote.probe import Probe

_SHOWN = ("fullname", "email", "mobile")  # besides name and groups


class Lain(Method):
    """The method of LAIN's single sign-on. It never sees a password."""

    def __init__(self, config: Section) -> None:
        """Raises ConfigError where ca_file is no file of certificates."""
        self._url = f"{config.sso.rstrip('/')}/api/me"
        self._client = JsonClient(config, "auth.lain")

    async def token(self, user: str, token: Token, source_ip: str) -> Identity | None:
        if token.jwt:
            return None
        try:
            answer = await self._client.get(self._url, {"Authorization": f"Bearer {token.value}"})
        except RemoteError as error:
            raise unavailable(f"LAIN: {error}", Reason.SSO_UNAVAILABLE) from None
        if answer.status == 401:
            said = printable(repr(answer.body.get("message"))[:200])
            raise refused(Reason.TOKEN_REFUSED, f"{user}: LAIN does not know the token: {said}")
        name, groups = answer.body.get("name"), answer.body.get("groups")
        if answer.status != 200 or not isinstance(name, str) or not isinstance(groups, list):
            text = f"LAIN: an answer without name and groups: HTTP {answer.status}"
            raise unavailable(text, Reason.SSO_UNAVAILABLE)
        if name != user:
            raise refused(Reason.ANOTHER_USER, f"{user}: LAIN says that the token is of {printable(repr(name)[:200])}")
        names = frozenset(group for group in groups if isinstance(group, str) and group)
        claims = {claim: answer.body[claim] for claim in _SHOWN if claim in answer.body}
        return Identity(user, "lain", names, claims, token=token.value)

    def probes(self) -> list[Probe]:
        return [Probe("LAIN", self._url, self._look_up_nothing)]

    async def _look_up_nothing(self) -> str:
        answer = await self._client.get(self._url, {"Authorization": f"Bearer check-config-{secrets.token_hex(8)}"})
        if answer.status != 401:
            raise RemoteError(f"HTTP {answer.status} for a made-up token; 401 is right")
        return "refuses a made-up token, as it should"

    async def close(self) -> None:
        await self._client.close()
