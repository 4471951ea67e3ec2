from typing import Any

import pytest
from pydantic import ValidationError

from bastion.config import Oidc
from tests.config.conftest import Problems

ISSUER = {"issuer": "https://sso.example.org/realms/staff", "audience": ["bastion"]}
CLIENT = {"client_id": "bastion", "client_secret": "hunter2"}


@pytest.mark.parametrize(
    "options",
    [
        ISSUER,
        {**ISSUER, **CLIENT, "opaque_tokens": "introspection"},
        {**ISSUER, "opaque_tokens": "userinfo"},
        {**ISSUER, "user_claim": "email", "user_template": "{user}@example.org", "groups_claim": None},
        {**ISSUER, "issuer": "http://sso.example.org", "allow_cleartext": True},
        {**ISSUER, "algorithms": ["ES512"], "leeway": 0},
    ],
    ids=str,
)
def test_right(options: dict[str, Any]) -> None:
    Oidc.model_validate(options)


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"issuer": "https://sso"}, "audience"),
        ({**ISSUER, "audience": []}, "at least 1 item"),
        ({**ISSUER, "audience": ["a", "a"]}, "each only once"),
        ({**ISSUER, "issuer": "http://sso.example.org"}, "https:// is right"),
        ({**ISSUER, "issuer": "sso.example.org"}, "https://host"),
        ({**ISSUER, "issuer": "https://sso/?a=b"}, "without"),
        ({**ISSUER, "algorithms": ["HS256"]}, "RS256"),
        ({**ISSUER, "algorithms": ["none"]}, "RS256"),
        ({**ISSUER, "algorithms": []}, "at least 1 item"),
        ({**ISSUER, "user_template": "alice"}, "{user}"),
        ({**ISSUER, "leeway": 3600}, "300"),
        ({**ISSUER, "opaque_tokens": "introspection"}, "client_id and client_secret"),
        ({**ISSUER, "client_secret": "hunter2"}, "client_id"),
        ({**ISSUER, "opaque_tokens": "guess"}, "introspection"),
    ],
    ids=str,
)
def test_wrong(options: dict[str, Any], right: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Oidc.model_validate(options)
    assert right in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_line_and_no_secret(problems: Problems) -> None:
    text = "auth:\n  oidc:\n    issuer: https://sso\n    audience: [bastion]\n    client_secret: hunter2\n"
    assert problems(text) == ["2: auth.oidc: client_id and client_secret together, or client_id alone, is right"]
