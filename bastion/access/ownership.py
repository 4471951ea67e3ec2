"""May this identity enter this container? Pure; whatever is unclear is a no."""

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

from bastion.config import Access, AccessRule
from bastion.model import NAME, Container, Decision, Identity

OWNERS_LABEL = "bastion.owners"
MAX_OWNERS_LABEL = 4096  # characters; a label may have megabytes, and each login reads them


def decide(
    identity: Identity,
    container: Container,
    access: Access,
    apps: Callable[[], Collection[str]],
    roles: Collection[str] = (),
) -> Decision:
    """May they, and have they given a second factor where a rule wants one of everybody who enters?

    `apps` gives the names of all apps that there are, or raises Unavailable; `roles` are those in which LAIN's console
    knows a role of theirs.
    """
    decision = _decide(identity, container, access, apps)
    if not decision.allowed and not container.protected and container.address.app in roles:
        decision = Decision(True, "lain-console")
    wanted = any(rule.second_factor and _covers(rule, container) for rule in access.rules)
    if decision.allowed and wanted and identity.second_factor is None:
        return Decision(False, f"{decision.rule} (without a second factor)", lacks_second_factor=True)
    return decision


def _decide(identity: Identity, container: Container, access: Access, apps: Callable[[], Collection[str]]) -> Decision:
    """The first that allows: the owners label, the app's group, LAIN's group, a rule of the configuration. Else no.

    Users and groups are compared exactly, case and all; only a rule's `apps` and `clusters` are patterns.
    `rule` of the answer: `protected`, `label:alice`, `label:@ops`, `group:app-web`, `lain-group:...`, `rules[2]`,
    `none`, or `none (malformed bastion.owners)`.
    """
    if container.protected:
        return Decision(False, "protected")
    entries = _owners(container.labels.get(OWNERS_LABEL)) if access.owners_label else frozenset()
    for entry in sorted(entries or ()):
        if entry == identity.user if not entry.startswith("@") else entry[1:] in identity.groups:
            return Decision(True, f"label:{entry}")
    app = container.address.app
    # The app stands in the group's name as it is: where a.b and a-b fell together, one's owners owned the other.
    if access.group_template is not None and NAME.fullmatch(app):
        group = access.group_template.replace("{app}", app)
        if group in identity.groups:
            return Decision(True, f"group:{group}")
    if access.lain is not None and access.lain.domain is not None:
        group = lain_group(access.lain.domain, app)
        # a.b and a-b share a group there: where both are apps, it says who owns neither
        if group in identity.groups and not any(
            lain_group(access.lain.domain, one) == group for one in {*apps()} - {app}
        ):
            return Decision(True, f"lain-group:{group}")
    for number, rule in enumerate(access.rules):
        if _names(rule, identity) and _covers(rule, container):
            return Decision(True, f"rules[{number}]")
    return Decision(False, "none" if entries is not None else f"none (malformed {OWNERS_LABEL})")


def _owners(label: str | None) -> frozenset[str] | None:
    """The entries of `alice, @ops`; None where one of them is malformed: then nobody knows what was meant."""
    if label is None:
        return frozenset()
    if len(label) > MAX_OWNERS_LABEL:
        return None
    entries = frozenset(entry.strip(" ") for entry in label.split(","))
    if any(entry in {"", "@"} or "*" in entry or not entry.isprintable() for entry in entries):
        return None
    return entries


def lain_group(domain: str, app: str) -> str:
    """The group that LAIN's single sign-on has for the owners of `app`."""
    return f"lainapp-{domain}-{app}".replace(".", "-")


def _names(rule: AccessRule, identity: Identity) -> bool:
    if rule.claim is not None:
        value = identity.claims.get(rule.claim)
        held = value if isinstance(value, list) else [value]
        if any(isinstance(one, str) and one in rule.values for one in held):
            return True
    return identity.user in rule.users or not identity.groups.isdisjoint(rule.groups)


def _covers(rule: AccessRule, container: Container) -> bool:
    cluster = container.address.cluster or ""
    return any(fnmatchcase(container.address.app, pattern) for pattern in rule.apps) and any(
        fnmatchcase(cluster, pattern) for pattern in rule.clusters
    )
