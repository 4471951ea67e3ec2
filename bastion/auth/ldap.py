"""Users in an LDAP directory: find the entry and bind as it, or bind by a template; then read the groups."""

import contextlib
import logging
import re
import secrets
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from bastion.auth import publickey
from bastion.auth.certificate import fingerprint
from bastion.auth.directory import (
    BindRefused,
    Directory,
    DirectoryError,
    Entry,
    NoAnswerError,
    directory,
    in_dn,
    in_filter,
    name_in_dn,
    tls_context,
)
from bastion.auth.method import Method
from bastion.auth.refusals import refused, unavailable
from bastion.auth.workers import Workers
from bastion.config import Ldap as LdapSection
from bastion.errors import ConfigError, Reason, Refusal, Unavailable
from bastion.model import Identity
from bastion.remote.breaker import Breaker, RestingError
from bastion.remote.probe import Probe

QUEUE_PER_THREAD = 16
MAX_GROUPS = 2000  # of one user
FILTERS_AT_ONCE = 50  # groups whose parents are asked for in one search

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Ldap(Method):
    """The method of an LDAP directory (RFC 4511)."""

    makes = frozenset({"ldap", "ldap-publickey"})

    def __init__(self, config: LdapSection) -> None:
        """Raises ConfigError where ca_file is no file of certificates."""
        self._config = config
        try:
            self._tls = tls_context(config.ca_file, config.verify)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"auth.ldap.ca_file: {config.ca_file} holds no certificates in PEM: {error}"]) from None
        self._workers = Workers("ldap", config.pool_size, QUEUE_PER_THREAD * config.pool_size)
        self._seconds = config.timeout * (len(config.servers) + 1)  # all servers, and a wait in the queue
        self._breakers = {url: Breaker() for url in config.servers}
        self.knows_users = config.search_base is not None

    async def password(self, user: str, password: bytes, source_ip: str) -> Identity | None:
        """None never: who is unknown has cost a bind too, and is refused as UNKNOWN_USER."""
        if not password:
            raise refused(Reason.EMPTY_PASSWORD, f"{user}: the password is empty")
        return await self._run(user, lambda server: self._ask(server, user, password))

    async def public_key(self, user: str, key_type: str, key_blob: bytes, source_ip: str) -> Identity | None:
        """The directory is not asked whether they may bind: search_filter has to leave out who is locked."""
        if self._config.key_attribute is None:
            return None
        return await self._run(user, lambda server: self._ask_for_key(server, user, key_type, key_blob, source_ip))

    async def lookup(self, user: str) -> Identity | None:
        return await self._run(user, lambda server: self._look_up(server, user)) if self.knows_users else None

    async def decoy(self) -> None:
        nobody = f"nobody-{secrets.token_hex(8)}"
        try:
            await self.password(nobody, secrets.token_hex(8).encode(), "")
        except Unavailable:
            raise
        except Refusal:
            pass

    def probes(self) -> list[Probe]:
        """Each server: bind as the account that searches, and look for the places where is searched."""

        def probe(url: str) -> Probe:
            return Probe("LDAP", url, lambda: self._workers.run(self._config.timeout * 2, lambda: self._look(url)))

        return [probe(url) for url in self._config.servers]

    async def close(self) -> None:
        await self._workers.close()

    async def _run(self, user: str, ask: Callable[[Directory], T]) -> T:
        return await self._workers.run(self._seconds, lambda: self._first_that_answers(user, ask))

    # ---- in a thread from here on ----

    def _first_that_answers(self, user: str, ask: Callable[[Directory], T]) -> T:
        """Ask one server after the other; those that failed lately come last, or not at all."""
        failures = []
        for url, breaker in sorted(self._breakers.items(), key=lambda pair: pair[1].failed_lately):
            try:
                with (
                    breaker.attempt(NoAnswerError),
                    directory(url, self._tls, start_tls=self._config.start_tls, seconds=self._config.timeout) as server,
                ):
                    return ask(server)
            except RestingError as error:
                failures.append(f"{url}: {error}")
            except DirectoryError as error:
                failures.append(f"{url}: {error}")
                _log.warning("LDAP server %s: %s", url, error)
        raise unavailable(f"{user}: no LDAP server can be asked: {'; '.join(failures)}")

    def _look(self, url: str) -> str:
        with directory(url, self._tls, start_tls=self._config.start_tls, seconds=self._config.timeout) as server:
            if self._config.bind_template is not None:
                return "answers; who signs in binds by the template"
            self._bind_as_service(server)
            for base in filter(None, (self._config.search_base, self._config.group_base)):
                if not server.search(base, "(objectClass=*)", ["1.1"], only_base=True):
                    raise DirectoryError(f"{base} can not be read")
            return f"bound as {self._config.bind_dn or 'nobody'}, and found {self._config.search_base}"

    def _ask(self, server: Directory, user: str, password: bytes) -> Identity:
        if self._config.bind_template is not None:
            entry = self._bind_by_template(server, self._config.bind_template, user, password)
        else:
            entry = self._search_then_bind(server, user, password)
        groups = self._groups(server, user, entry)
        return Identity(user, "ldap", groups, {"dn": entry.dn})

    def _ask_for_key(self, server: Directory, user: str, key_type: str, blob: bytes, source_ip: str) -> Identity | None:
        attribute = self._config.key_attribute
        assert attribute is not None
        entry = self._search(server, user, [attribute])
        if entry is None:
            return None
        keys, problems = [], []
        for value in entry.values(attribute):
            try:
                keys.append(publickey.parse(value.decode()))
            except ValueError as error:
                problems.append(str(error))
        whys = [key.why_not(source_ip, datetime.now(UTC)) for key in keys if key and key.is_key(key_type, blob)]
        if None not in whys:
            why = "; ".join([one for one in whys if one] or [f"not in {attribute}", *problems])
            raise refused(Reason.KEY_NOT_ALLOWED, f"{user}: {key_type[:64]} key: {why} (LDAP entry {entry.dn})")
        groups, credential = self._groups(server, user, entry), {"key": fingerprint(blob)}
        return Identity(user, "ldap-publickey", groups, {"dn": entry.dn}, credential=credential, key=blob)

    def _look_up(self, server: Directory, user: str) -> Identity | None:
        entry = self._search(server, user, [])
        return None if entry is None else Identity(user, "ldap", self._groups(server, user, entry), {"dn": entry.dn})

    def _search(self, server: Directory, user: str, more: list[str]) -> Entry | None:
        """The entry of exactly this user, by the bastion's own account."""
        self._bind_as_service(server)
        filter_ = _filled(self._config.search_filter, in_filter, user=user)
        base = self._config.search_base or ""
        entries = server.search(base, filter_, [*self._attributes(), *more], limit=1)
        return None if self._not_who_was_asked_for(entries, user) is not None else entries[0]

    def _bind_by_template(self, server: Directory, template: str, user: str, password: bytes) -> Entry:
        dn = _filled(template, in_dn, user=user)
        try:
            server.bind(dn, password)
        except BindRefused as error:
            # most servers do not say whether there is such a user
            raise refused(Reason.WRONG_CREDENTIALS, f"{user}: LDAP bind as {dn}: {error}") from None
        entries = server.search(dn, "(objectClass=*)", self._attributes(), only_base=True)
        if not entries:
            raise DirectoryError(f"{dn} can not read their own entry")
        problem = self._not_who_was_asked_for(entries, user)
        if problem is not None:
            raise refused(Reason.UNKNOWN_USER, problem)
        return entries[0]

    def _search_then_bind(self, server: Directory, user: str, password: bytes) -> Entry:
        base = self._config.search_base or ""
        self._bind_as_service(server)
        entries = server.search(
            base, _filled(self._config.search_filter, in_filter, user=user), self._attributes(), limit=1
        )
        problem = self._not_who_was_asked_for(entries, user)
        if problem is not None:
            # as many round trips as for a wrong password; with a DN and a password that nobody has
            with contextlib.suppress(BindRefused):
                server.bind(f"cn=nobody-{secrets.token_hex(8)},{base}", secrets.token_hex(8).encode())
            raise refused(Reason.UNKNOWN_USER, problem)
        try:
            server.bind(entries[0].dn, password)
        except BindRefused as error:
            raise refused(Reason.WRONG_CREDENTIALS, f"{user}: LDAP bind as {entries[0].dn}: {error}") from None
        if self._config.bind_dn is not None:
            self._bind_as_service(server)  # for the groups; users may not see them
        return entries[0]

    def _bind_as_service(self, server: Directory) -> None:
        if self._config.bind_dn is None or self._config.bind_password is None:
            server.bind_anonymously()
            return
        try:
            server.bind(self._config.bind_dn, self._config.bind_password.get_secret_value().encode())
        except BindRefused as error:
            raise DirectoryError(f"the bastion's own bind_dn and bind_password are refused: {error}") from None

    def _not_who_was_asked_for(self, entries: list[Entry], user: str) -> str | None:
        """None for exactly one entry whose user name is `user` to the letter: directories ignore case, and more."""
        attribute = self._config.user_attribute
        if not entries:
            return f"{user}: not in the LDAP directory"
        if len(entries) > 1:
            return f"{user}: more than one LDAP entry fits, {entries[0].dn} and {entries[1].dn} among them"
        names = entries[0].values(attribute)
        if user.encode() not in names:
            return f"{user}: the LDAP entry {entries[0].dn} has another {attribute}: {names!r}"
        return None

    def _attributes(self) -> list[str]:
        from_entry = [self._config.member_of] if self._config.member_of and not self._config.group_base else []
        return [self._config.user_attribute, *from_entry]

    # ---- groups ----

    def _groups(self, server: Directory, user: str, entry: Entry) -> frozenset[str]:
        if self._config.group_base is not None:
            return frozenset(self._groups_by_search(server, self._config.group_base, user, entry))
        if self._config.member_of is None:
            return frozenset()
        dns = [value.decode("utf-8", "replace") for value in entry.values(self._config.member_of)]
        names = [name_in_dn(dn, self._config.group_name_attribute) for dn in _bounded(dns, user)]
        return frozenset(name for name in names if name)

    def _groups_by_search(self, server: Directory, base: str, user: str, entry: Entry) -> set[str]:
        """Level by level, where nested groups count; each group once, so that circles end."""
        attribute = self._config.group_name_attribute
        names: set[str] = set()
        seen: set[str] = set()
        level = [entry.dn]
        while level:
            found: dict[str, Entry] = {}
            for start in range(0, len(level), FILTERS_AT_ONCE):
                members = level[start : start + FILTERS_AT_ONCE]
                filters = [_filled(self._config.group_filter, in_filter, user=user, dn=dn) for dn in members]
                found |= {one.dn: one for one in server.search(base, f"(|{''.join(filters)})", [attribute])}
            level = [dn for dn in found if dn not in seen]
            seen.update(_bounded(level, user, len(seen)))
            names.update(value.decode("utf-8", "replace") for dn in level for value in found[dn].values(attribute))
            if not self._config.nested_groups:
                break
        return names


def _bounded(groups: list[str], user: str, before: int = 0) -> list[str]:
    if len(groups) + before > MAX_GROUPS:
        raise unavailable(f"{user}: in more than {MAX_GROUPS} LDAP groups; a narrower group_base or filter is right")
    return groups


def _filled(template: str, escaped: Callable[[str], str], **values: str) -> str:
    """`template` with each {name} replaced by its escaped value, in one pass: values are no templates."""
    return re.sub(r"\{(\w+)\}", lambda match: escaped(values[match[1]]), template)
