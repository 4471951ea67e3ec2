from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.access import ownership
from bastion.access.ownership import MAX_OWNERS_LABEL
from bastion.config import Access, AccessRule, LainOwners
from bastion.errors import Reason, Unavailable
from bastion.model import Address, Container, ContainerState, Decision, Identity

NOBODY = Decision(False, "none")
MALFORMED = Decision(False, "none (malformed bastion.owners)")


def container(
    app: str = "web", owners: str | None = None, *, cluster: str | None = None, protected: bool = False
) -> Container:
    labels: Mapping[str, str] = {} if owners is None else {"bastion.owners": owners}
    address = Address(app, "worker", 1, cluster)
    return Container("local", "c" * 64, "c", "image", labels, ContainerState.RUNNING, address, protected)


def decide(identity: Identity, container: Container, access: Access, apps: frozenset[str] = frozenset()) -> Decision:
    return ownership.decide(identity, container, access, lambda: apps)


def who(user: str = "alice", *groups: str) -> Identity:
    return Identity(user, "test", frozenset(groups))


def test_nobody_may_enter_where_nothing_says_so() -> None:
    assert decide(who("alice", "web", "app-web"), container(), Access()) == NOBODY


@pytest.mark.parametrize(
    ("owners", "rule"),
    [
        ("alice", "label:alice"),
        ("bob,alice", "label:alice"),
        ("bob, alice", "label:alice"),
        ("@ops", "label:@ops"),
        ("bob,@ops", "label:@ops"),
        ("@domain users", "label:@domain users"),
    ],
)
def test_the_label_names_owners(owners: str, rule: str) -> None:
    assert decide(who("alice", "ops", "domain users"), container(owners=owners), Access()) == Decision(True, rule)


@pytest.mark.parametrize("owners", ["bob", "Alice", "ALICE", "alic", "alice2", "ops", "@alice", "@Ops", "@op"])
def test_only_the_exact_name_is_meant(owners: str) -> None:
    assert decide(who("alice", "ops"), container(owners=owners), Access()) == NOBODY


@pytest.mark.parametrize(
    "owners",
    ["", " ", ",", "alice,", ",alice", "alice,,bob", "*", "alice,*", "al*", "@", "alice,@", "@*", "alice\n", "alice,\0",
     "alice," + "b" * MAX_OWNERS_LABEL],
)  # fmt: skip
def test_a_malformed_label_allows_nobody(owners: str) -> None:
    assert decide(who("alice", "ops"), container(owners=owners), Access()) == MALFORMED


@given(st.text("alice@*, \n", max_size=12))
def test_a_label_allows_only_whom_it_names(owners: str) -> None:
    allowed = decide(who("alice", "ops"), container(owners=owners), Access()).allowed
    assert not allowed or "alice" in [entry.strip() for entry in owners.split(",")]


def test_a_user_is_no_group_and_a_group_is_no_user() -> None:
    assert decide(who("@ops"), container(owners="@ops"), Access()) == NOBODY
    assert decide(who("bob", "alice"), container(owners="alice"), Access()) == NOBODY


def test_the_label_is_not_read_where_the_configuration_says_so() -> None:
    assert decide(who(), container(owners="alice"), Access(owners_label=False)) == NOBODY
    assert decide(who(), container(owners=","), Access(owners_label=False)) == NOBODY


def test_members_of_the_apps_group_own_it() -> None:
    access = Access(group_template="app-{app}")
    assert decide(who("alice", "app-web"), container(), access) == Decision(True, "group:app-web")
    assert decide(who("alice", "app-Web", "web", "app-", "app-{app}"), container(), access) == NOBODY


def test_the_group_of_one_app_does_not_own_another_of_a_similar_name() -> None:
    access = Access(group_template="app-{app}")
    assert decide(who("alice", "app-a-b"), container("a.b"), access) == NOBODY
    assert decide(who("alice", "app-a.b"), container("a-b"), access) == NOBODY
    assert decide(who("alice", "app-a.b"), container("a.b"), access) == Decision(True, "group:app-a.b")


@pytest.mark.parametrize("app", ["", "a,ou=x", "a b", "a*", "a\n", "{app}", "wéb", "../a"])
def test_an_app_with_an_unsafe_name_has_no_group(app: str) -> None:
    access = Access(group_template="cn=app-{app},ou=groups")
    assert decide(who("alice", f"cn=app-{app},ou=groups"), container(app), access) == NOBODY


def test_the_template_is_no_format_string() -> None:
    access = Access(group_template="{app}-{app.__class__}")
    assert decide(who("alice", "web-{app.__class__}"), container(), access).allowed


def rules(*given_rules: AccessRule) -> Access:
    return Access(rules=given_rules)


def test_rules_name_users_or_groups_and_apps() -> None:
    access = rules(AccessRule(users=("bob",), apps=("web",)), AccessRule(groups=("ops",), apps=("db", "web*")))
    assert decide(who("bob"), container(), access) == Decision(True, "rules[0]")
    assert decide(who("alice", "ops"), container("web-2"), access) == Decision(True, "rules[1]")
    assert decide(who("alice", "ops"), container("Web"), access) == NOBODY
    assert decide(who("bob"), container("web-2"), access) == NOBODY
    assert decide(who("Bob", "Ops"), container(), access) == NOBODY


def test_a_star_for_users_or_groups_means_nobody() -> None:
    access = rules(AccessRule(users=("*",), groups=("*",), apps=("*",)))
    assert decide(who("alice", "ops"), container(), access) == NOBODY


def test_a_rule_without_users_and_groups_means_nobody() -> None:
    # The configuration refuses such a rule; should it ever get here, it is closed all the same.
    empty = AccessRule.model_construct(users=(), groups=(), apps=("*",), clusters=("*",))
    access = Access.model_construct(rules=(empty,))
    assert decide(who("alice", "ops"), container(), access) == NOBODY
    assert decide(who(""), container(), access) == NOBODY


def test_a_rule_may_be_for_some_clusters() -> None:
    access = rules(AccessRule(users=("alice",), apps=("*",), clusters=("eu-*",)))
    assert decide(who(), container(cluster="eu-1"), access).allowed
    assert decide(who(), container(cluster="us-1"), access) == NOBODY
    assert decide(who(), container(cluster=None), access) == NOBODY


def test_the_bastions_own_containers_are_never_entered() -> None:
    access = Access(group_template="app-{app}", rules=(AccessRule(users=("alice",), apps=("*",)),))
    own = container(owners="alice", protected=True)
    assert decide(who("alice", "app-web"), own, access) == Decision(False, "protected")


def test_a_second_factor_is_wanted_of_everybody_who_enters_whatever_lets_them_in() -> None:
    rule = AccessRule(users=("carol",), apps=("vault",), second_factor=True)
    access = Access(group_template="app-{app}", rules=(rule, AccessRule(groups=("ops",), apps=("*",))))
    for identity, allowed_by in (
        (who("alice"), "label:alice"),
        (who("bob", "app-vault"), "group:app-vault"),
        (who("carol"), "rules[0]"),
        (who("dave", "ops"), "rules[1]"),
    ):
        decision = decide(identity, container("vault", "alice"), access)
        assert decision == Decision(False, f"{allowed_by} (without a second factor)", lacks_second_factor=True)
        complete = replace(identity, second_factor="totp")
        assert decide(complete, container("vault", "alice"), access) == Decision(True, allowed_by)
    assert decide(who("dave", "ops"), container("web"), access) == Decision(True, "rules[1]")
    assert decide(who("eve"), container("vault", "alice"), access) == NOBODY


LAIN = Access(lain=LainOwners(domain="lain.example.org"))
GROUP = "lainapp-lain-example-org-a-b"


def test_lains_group_of_an_app() -> None:
    allowed = Decision(True, f"lain-group:{GROUP}")
    assert decide(who("alice", GROUP), container("a.b"), LAIN, frozenset({"a.b", "ab", "a.b.c"})) == allowed
    assert decide(who("alice", GROUP), container("a-b"), LAIN, frozenset({"a-b"})) == allowed
    assert decide(who("alice", GROUP), container("a-b"), LAIN, frozenset()) == allowed
    assert decide(who("alice", GROUP), container("ab"), LAIN) == NOBODY
    assert decide(who("alice", "lainapp-lain.example.org-a.b"), container("a.b"), LAIN) == NOBODY
    assert decide(who("alice", GROUP), container("a.b"), Access()) == NOBODY


def test_lains_group_of_two_apps_is_nobodys() -> None:
    both = frozenset({"a.b", "a-b"})
    for app in both:
        assert decide(who("alice", GROUP), container(app), LAIN, both) == NOBODY
        assert decide(who("alice", GROUP), container(app, owners="alice"), LAIN, both).allowed  # by another rule


def test_lains_group_where_it_is_not_known_which_apps_there_are() -> None:
    def apps() -> frozenset[str]:
        raise Unavailable(Reason.ENGINE_UNAVAILABLE, "")

    with pytest.raises(Unavailable):
        ownership.decide(who("alice", GROUP), container("a.b"), LAIN, apps)
    assert ownership.decide(who("alice"), container("a.b"), LAIN, apps) == NOBODY  # nobody had to know


def test_a_rule_on_a_claim() -> None:
    access = Access(rules=(AccessRule(claim="department", values=("payments", "ops"), apps=("web",)),))
    for value in ("payments", "ops", ["sales", "ops"]):
        identity = Identity("alice", "oidc-token", claims={"department": value})
        assert decide(identity, container(), access) == Decision(True, "rules[0]")
        assert decide(identity, container("shop"), access) == NOBODY
    for value in ("Payments", "sales", "payments,ops", ["sales"], [["ops"]], {"ops": 1}, 1, True, None):
        assert decide(Identity("alice", "oidc-token", claims={"department": value}), container(), access) == NOBODY
    assert decide(Identity("payments", "ldap", claims={"dn": "payments"}), container(), access) == NOBODY
