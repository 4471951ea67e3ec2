"""Tokens that only their provider can read: by introspection (RFC 7662) or by what userinfo says for them."""

import base64
from collections.abc import Mapping
from urllib.parse import quote_plus

from bastion.auth import jwt
from bastion.auth.issuer import Known
from bastion.auth.refusals import refused, unavailable
from bastion.config import Oidc as Section
from bastion.errors import Reason
from bastion.remote.http import JsonClient, RemoteError


async def introspected(token: str, client: JsonClient, known: Known, config: Section) -> Mapping[str, object]:
    """The claims of an active token for our audience. Raises Refusal, or Unavailable without a clear answer."""
    form = {"token": token, "token_type_hint": "access_token"}
    form, headers = with_client(form, known, config, "introspection_endpoint")
    try:
        answer = await client.post(known.endpoint("introspection_endpoint"), form, headers)
    except RemoteError as error:
        raise unavailable(f"introspection: {error}", Reason.SSO_UNAVAILABLE) from None
    if answer.status != 200:
        text = "client_id and client_secret are refused" if answer.status == 401 else "no answer to the question"
        raise unavailable(f"introspection: {text}: HTTP {answer.status}", Reason.SSO_UNAVAILABLE)
    if answer.body.get("active") is False:
        raise refused(Reason.TOKEN_REFUSED, "introspection: the token is not active")
    if answer.body.get("active") is not True:
        raise unavailable("introspection: the answer does not say whether the token is active", Reason.SSO_UNAVAILABLE)
    # `aud` is optional there; without it, a token is for the client that it was issued to
    claims = {"iss": config.issuer, "aud": answer.body.get("client_id"), **answer.body}
    jwt.check(claims, issuer=config.issuer, audience=config.audience, leeway=config.leeway, must_end=False)
    return claims


async def userinfo(token: str, client: JsonClient, known: Known) -> Mapping[str, object]:
    """What the provider says about the token's user (OpenID Connect Core section 5.3). Raises as `introspected`.

    Whom the token was issued to is not said: every client of the provider can sign in with its users' tokens.
    """
    try:
        answer = await client.get(known.endpoint("userinfo_endpoint"), {"Authorization": f"Bearer {token}"})
    except RemoteError as error:
        raise unavailable(f"userinfo: {error}", Reason.SSO_UNAVAILABLE) from None
    if answer.status in (401, 403):
        raise refused(Reason.TOKEN_REFUSED, f"userinfo: the token is refused: HTTP {answer.status}")
    if answer.status != 200 or not isinstance(answer.body.get("sub"), str):
        raise unavailable(f"userinfo: an answer without sub: HTTP {answer.status}", Reason.SSO_UNAVAILABLE)
    return answer.body


def with_client(
    form: Mapping[str, str], known: Known, config: Section, endpoint: str
) -> tuple[dict[str, str], dict[str, str]]:
    """`form` and headers that say that it is the bastion who asks (RFC 6749 section 2.3.1).

    The secret in the form is for providers that take it nowhere else.
    """
    identified = {**form, "client_id": config.client_id or ""}
    if config.client_secret is None:
        return identified, {}
    secret = config.client_secret.get_secret_value()
    methods = known.metadata.get(f"{endpoint}_auth_methods_supported")
    if isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods:
        return {**identified, "client_secret": secret}, {}
    pair = f"{quote_plus(config.client_id or '')}:{quote_plus(secret)}"
    return dict(form), {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
