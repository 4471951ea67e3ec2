from tests.config.conftest import Load, Problems

SSO = "auth: {lain: {sso: 'https://sso.example.org'}}\n"
CONSOLE = "access: {lain: {console: 'https://console.example.org', domain: example.org}}\n"


def test_right(load: Load) -> None:
    assert load(SSO + CONSOLE).access.lain is not None
    assert load("auth: {local: {}}\naccess: {lain: {domain: example.org}}\n").access.lain is not None


def test_wrong(problems: Problems) -> None:
    assert "https:// is right" in problems("auth: {lain: {sso: 'http://sso.example.org'}}\n")[0]
    assert "https:// is right" in problems(SSO + "access: {lain: {console: 'http://c.example.org'}}\n")[0]
    assert "console or domain" in problems(SSO + "access: {lain: {}}\n")[0]
    assert problems(SSO + "access: {lain: {domain: 'a/b'}}\n")
    assert "access.lain.console with auth.lain" in problems("auth: {local: {}}\n" + CONSOLE)[0]
    both = (
        "auth:\n  lain: {sso: 'https://sso'}\n  oidc: {issuer: 'https://a', audience: [a], opaque_tokens: userinfo}\n"
    )
    assert "one of lain and oidc.opaque_tokens is right" in problems(both)[0]
    rule = "auth: {local: {}}\naccess: {rules: [{claim: a, apps: [web]}]}\n"
    assert "claim and values together" in problems(rule)[0]
