"""The section `auth.oidc`: people who have a token of an OpenID provider, or can get one."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bastion.config.ldap import UserTemplate
from bastion.config.remote import Remote
from bastion.config.section import unique

# Asymmetric ones only: with HS256, whoever knows a public key, or the client's secret, could make tokens.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]


class Oidc(Remote):
    """An OpenID provider (OpenID Connect Discovery 1.0), and what in its tokens says who somebody is."""

    issuer: str  # as its metadata has it, to the letter
    audience: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(unique)]  # a token is for one of these
    client_id: str | None = Field(None, min_length=1)
    client_secret: SecretStr | None = Field(None, min_length=1)
    user_claim: str = Field("preferred_username", min_length=1)
    user_template: UserTemplate = "{user}"  # what that claim is, to the letter, for {user}
    groups_claim: str | None = Field("groups", min_length=1)
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1), AfterValidator(unique)] = (
        "RS256",
        "PS256",
        "ES256",
        "Ed25519",
        "EdDSA",
    )
    opaque_tokens: Literal["introspection", "userinfo"] | None = None  # how those that are no JWTs are looked up
    device_flow: bool = False  # RFC 8628, over keyboard-interactive
    scope: str = "openid profile email"  # what the device flow asks for
    leeway: float = Field(30, ge=0, le=300)  # seconds that clocks may differ

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self.check_url("issuer", self.issuer)
        if "?" in self.issuer or "#" in self.issuer:
            raise ValueError("issuer: a URL without '?' and '#' is right")
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("client_id and client_secret together, or client_id alone, is right")
        if self.device_flow and (self.client_id is None or "openid" not in self.scope.split()):
            raise ValueError("device_flow with client_id, and with openid in scope, is right")
        if self.opaque_tokens == "introspection" and self.client_secret is None:
            raise ValueError("opaque_tokens: introspection with client_id and client_secret is right")
        return self
