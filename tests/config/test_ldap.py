from typing import Any

import pytest
from pydantic import ValidationError

from bastion.config import Ldap
from tests.config.conftest import Problems

SEARCH = {"servers": ["ldaps://ldap.example.org"], "search_base": "dc=example"}
TEMPLATE = {"servers": ["ldaps://ldap.example.org"], "bind_template": "uid={user},dc=example"}
CLEARTEXT = ["ldap://ldap.example.org"]


@pytest.mark.parametrize(
    "options",
    [
        SEARCH,
        TEMPLATE,
        {**SEARCH, "servers": ["ldaps://[::1]:6636", "ldaps://192.0.2.1"]},
        {**SEARCH, "servers": CLEARTEXT, "start_tls": True},
        {**SEARCH, "servers": [*CLEARTEXT, "ldaps://b"], "allow_cleartext": True},
        {**SEARCH, "bind_dn": "cn=reader", "bind_password": "x"},
        {**SEARCH, "group_base": "dc=example", "nested_groups": True},
        {**SEARCH, "key_attribute": "sshPublicKey"},
        {**SEARCH, "group_base": "dc=example", "group_filter": "(&(objectClass=group)(memberUid={user}))"},
        {**SEARCH, "search_filter": "(&(objectClass=person)(|(uid={user})(mail={user})))", "member_of": None},
    ],
    ids=str,
)
def test_right(options: dict[str, Any]) -> None:
    Ldap.model_validate(options)


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({**TEMPLATE, "key_attribute": "sshPublicKey"}, "key_attribute with search_base is right"),
        ({**SEARCH, "servers": []}, "at least 1 item"),
        ({**SEARCH, "servers": ["ldap.example.org"]}, "ldaps://host, ldaps://host:636 or ldap://host:389 is right"),
        ({**SEARCH, "servers": ["http://a"]}, "ldaps://host"),
        ({**SEARCH, "servers": ["ldaps://a/dc=example"]}, "ldaps://host"),
        ({**SEARCH, "servers": ["ldaps://user:password@a"]}, "ldaps://host"),
        ({**SEARCH, "servers": ["ldaps://a:0"]}, "ldaps://host"),
        ({**SEARCH, "servers": ["ldaps://a:65536"]}, "ldaps://host"),
        ({**SEARCH, "servers": CLEARTEXT}, "ldap://ldap.example.org would show passwords to the network"),
        ({**SEARCH, "servers": [*CLEARTEXT, "ldaps://b"], "start_tls": True}, "ldaps:// is TLS from the start"),
        ({**SEARCH, "start_tls": True}, "ldaps:// is TLS from the start"),
        ({**SEARCH, **TEMPLATE}, "one of search_base and bind_template is right"),
        ({"servers": SEARCH["servers"]}, "one of search_base and bind_template is right"),
        ({**TEMPLATE, "bind_template": "uid=alice,dc=example"}, "a template with {user} in it"),
        ({**TEMPLATE, "bind_template": "uid={user},ou={team}"}, "no other {name}"),
        ({**TEMPLATE, "bind_dn": "cn=reader", "bind_password": "x"}, "bind_dn is for search_base"),
        ({**SEARCH, "bind_dn": "cn=reader"}, "bind_dn and bind_password together"),
        ({**SEARCH, "bind_password": "x"}, "bind_dn and bind_password together"),
        ({**SEARCH, "bind_dn": "cn=reader", "bind_password": ""}, "at least 1"),
        ({**SEARCH, "search_filter": "(uid=*)"}, "a template with {user} in it"),
        ({**SEARCH, "search_filter": "uid={user}"}, "an LDAP filter in parentheses"),
        ({**SEARCH, "search_filter": "((uid={user})"}, "an LDAP filter in parentheses"),
        ({**SEARCH, "group_filter": "(objectClass=group)"}, "a filter with {dn} or {user} in it"),
        ({**SEARCH, "group_filter": "(member={dn},{x})"}, "a filter with {dn} or {user} in it"),
        ({**SEARCH, "nested_groups": True}, "nested_groups with group_base"),
        (
            {**SEARCH, "nested_groups": True, "group_base": "dc=example", "group_filter": "(memberUid={user})"},
            "nested_groups with group_base and a group_filter of {dn}",
        ),
        ({**SEARCH, "timeout": 0}, "greater than 0"),
        ({**SEARCH, "pool_size": 0}, "greater than or equal to 1"),
    ],
    ids=str,
)
def test_wrong(options: dict[str, Any], right: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Ldap.model_validate(options)
    assert right in str(caught.value)


def test_what_is_said_names_the_option_and_no_secret(problems: Problems) -> None:
    text = "auth:\n  ldap:\n    servers: [http://a]\n    search_base: ''\n    bind_dn: x\n    bind_password: ''\n"
    said = problems(text)
    assert [line.split(": ")[1] for line in said] == [
        "auth.ldap.servers[0]",
        "auth.ldap.search_base",
        "auth.ldap.bind_password",
    ]
    assert problems("auth:\n  ldap:\n    servers: [ldaps://a]\n") == [
        "2: auth.ldap: one of search_base and bind_template is right, not both and not none"
    ]
