"""Tokens of an OpenID provider: JWTs are verified here; of others the provider is asked."""

import ssl
from collections.abc import Mapping

from bastion.auth import claims, jwt, opaque
from bastion.auth.issuer import Issuer
from bastion.auth.method import Method
from bastion.auth.refusals import refused
from bastion.auth.tokens import Token
from bastion.config import Oidc as Section
from bastion.errors import ConfigError, Reason, printable
from bastion.model import Identity
from bastion.remote.http import JsonClient


class Oidc(Method):
    """The method of an OpenID provider. It never sees a password."""

    def __init__(self, config: Section) -> None:
        """Raises ConfigError where ca_file is no file of certificates."""
        self._config = config
        try:
            self._client = JsonClient(
                ca_file=config.ca_file, seconds=config.timeout, allow_cleartext=config.allow_cleartext
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"auth.oidc.ca_file: {config.ca_file} holds no certificates in PEM: {error}"]) from None
        self._issuer = Issuer(config.issuer, self._client)

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
