"""Tokens of an OpenID provider: JWTs are verified here; of others the provider is asked."""

import secrets
from collections.abc import Mapping

from bastion.auth import claims, jwt, opaque
from bastion.auth.conversation import Conversation
from bastion.auth.device_flow import DeviceFlow
from bastion.auth.issuer import Issuer
from bastion.auth.method import Method
from bastion.auth.refusals import refused
from bastion.auth.tokens import Token
from bastion.config import Oidc as Section
from bastion.errors import Reason, Refusal, Unavailable, printable
from bastion.model import Identity
from bastion.remote.http import JsonClient, RemoteError
from bastion.remote.probe import Probe


class Oidc(Method):
    """The method of an OpenID provider. It never sees a password."""

    def __init__(self, config: Section) -> None:
        """Raises ConfigError where ca_file is no file of certificates."""
        self._config = config
        self._client = JsonClient(config, "auth.oidc")
        self._issuer = Issuer(config.issuer, self._client)
        self.converses = config.device_flow

    async def token(self, user: str, token: Token, source_ip: str) -> Identity | None:
        found: Mapping[str, object]
        if token.jwt:
            method, found = "oidc-token", await self._verified(token.value, self._config.audience)
        elif self._config.opaque_tokens == "introspection":
            known = await self._issuer.known()
            found = await opaque.introspected(token.value, self._client, known, self._config)
            method = "oidc-introspection"
        elif self._config.opaque_tokens == "userinfo":
            method = "oidc-userinfo"
            found = await opaque.userinfo(token.value, self._client, await self._issuer.known())
        else:
            return None
        return claims.identity(user, method, found, self._config)

    async def conversation(self, user: str, source_ip: str) -> Conversation | None:
        if not self._config.device_flow or self._config.client_id is None:
            return None
        audience = (self._config.client_id,)

        async def signed_in(id_token: str) -> Identity:
            return claims.identity(user, "oidc-device", await self._verified(id_token, audience), self._config)

        return DeviceFlow(self._client, self._issuer, self._config, signed_in)

    def probes(self) -> list[Probe]:
        name = self._config.issuer
        found = [Probe("OpenID", name, self._look_for_keys)]
        if self._config.opaque_tokens is not None:
            found.append(Probe("OpenID", f"{name} {self._config.opaque_tokens}", self._look_up_nothing))
        if self._config.device_flow:
            found.append(Probe("OpenID", f"{name} device flow", self._begin_device_flow))
        return found

    async def _look_for_keys(self) -> str:
        known = await self._issuer.known()
        kinds = ", ".join(sorted({key.key_type for key in known.keys}))
        return f"metadata, and {len(known.keys)} keys ({kinds})"

    async def _look_up_nothing(self) -> str:
        """Raises unless the provider says that a token that it can not know is not good."""
        nothing = Token(f"check-config-{secrets.token_hex(8)}", False)
        try:
            await self.token("nobody", nothing, "")
        except Unavailable:
            raise
        except Refusal as no:
            if no.reason is Reason.TOKEN_REFUSED:
                return "refuses a made-up token, as it should"
            raise
        raise RemoteError("takes a made-up token")

    async def _begin_device_flow(self) -> str:
        conversation = await self.conversation("nobody", "")
        assert conversation is not None
        await conversation.start()
        return "gives codes"

    async def close(self) -> None:
        await self._issuer.close()
        await self._client.close()

    async def _verified(self, token: str, audience: tuple[str, ...]) -> dict[str, object]:
        """The claims of a JWT; what can be told without the provider's keys is told first."""
        unverified = jwt.Unverified(token)
        if unverified.algorithm not in self._config.algorithms:
            shown = printable(repr(unverified.algorithm)[:40])
            raise refused(Reason.WRONG_ALGORITHM, f"the token is signed with {shown}, which is not in algorithms")
        if str(unverified.type or "").lower() not in jwt.TYPES:
            raise refused(
                Reason.MALFORMED_TOKEN, f"a token of type {printable(repr(unverified.type)[:40])} is for others"
            )
        if unverified.issuer != self._config.issuer:
            shown = printable(repr(unverified.issuer)[:200])
            raise refused(Reason.WRONG_ISSUER, f"the token's issuer is {shown}, not '{self._config.issuer}'")
        known = await self._issuer.known()
        keys = jwt.candidates(unverified, known.keys)
        if not keys:
            keys = jwt.candidates(unverified, (await self._issuer.newer(known)).keys)
        if not keys:
            shown = printable(repr(unverified.key_id)[:80])
            raise refused(Reason.UNKNOWN_KEY, f"the OpenID provider has no key {shown} for {unverified.algorithm}")
        return jwt.verified(
            token,
            keys,
            algorithms=self._config.algorithms,
            issuer=self._config.issuer,
            audience=audience,
            leeway=self._config.leeway,
        )
