"""Who looks, and what they may see: an auditor all, an owner the sessions of their own apps, nobody else anything."""

import contextlib
import grp
import os
import pwd
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine
from bastion.audit.events import Event
from bastion.audit.search import Filters
from bastion.auth.users_file import UsersFile, UsersFileError
from bastion.config import Config
from bastion.control.client import owned_apps, tell
from bastion.control.lock import as_owner_of
from bastion.errors import BastionError, printable


@dataclass(frozen=True, slots=True)
class Viewer:
    """`apps` are those whose sessions they may see; None: all of them."""

    name: str
    apps: frozenset[str] | None


def person() -> str:
    """Who is at the command line, behind sudo the one who called it: for the log, not for what they may do."""
    return os.environ.get("SUDO_USER", _name(os.geteuid()))


async def viewer(config: Config) -> Viewer:
    """The person at the command line. BastionError where they may see nothing.

    That is the user of the operating system, behind sudo the one who called it. Root and the bastion's own account,
    without sudo in front, may see all: they can read the files anyway.
    """
    owners = {0, _owner_of_the_state(config)}
    name = _name(os.geteuid())
    if os.geteuid() in owners:
        name = os.environ.get("SUDO_USER", name)
        if "SUDO_USER" not in os.environ or _uid(name) in owners:
            return Viewer(name, None)
    groups = _groups(name, config)
    if name in config.audit.auditors or any(f"@{group}" in config.audit.auditors for group in groups):
        return Viewer(name, None)
    if config.audit.owners_may_read:
        apps = await owned_apps(config, name, groups)
        if apps:
            return Viewer(name, apps)
        raise BastionError(f"{printable(name)} is no auditor (audit.auditors) and owns no app here")
    raise BastionError(f"{printable(name)} is no auditor (audit.auditors)")


async def auditor(config: Config) -> Viewer:
    """The person at the command line, who may see all. BastionError where they may not."""
    who = await viewer(config)
    if who.apps is not None:
        raise BastionError(f"{printable(who.name)} is no auditor (audit.auditors)")
    return who


async def searching(config: Config, what: str, wanted: Filters, **more: object) -> Viewer:
    """The person at the command line, once the audit log knows what they search. BastionError.

    `what` is sessions, commands, events or recordings; `more` is what they are looked for by, beside `wanted`.
    """
    who = await viewer(config)
    given = {name: value for name, value in (asdict(wanted) | more).items() if value is not None}
    await tell(config, Event.AUDIT_SEARCHED, user=who.name, what=what, filters=given)
    return who


@contextlib.asynccontextmanager
async def look(
    config: Config, what: str, wanted: Filters, **more: object
) -> AsyncIterator[tuple[AsyncEngine, Filters]]:
    """The database, and `wanted` cut to what this person may see; the arguments and BastionError as in searching()."""
    who = await searching(config, what, wanted, **more)
    async with database(config) as engine:
        yield engine, replace(wanted, apps=who.apps)


@contextlib.asynccontextmanager
async def database(config: Config) -> AsyncIterator[AsyncEngine]:
    """The database, as long as it is needed."""
    engine = create_engine(config.database)
    try:
        yield engine
    finally:
        await engine.dispose()


def _owner_of_the_state(config: Config) -> int:
    try:
        return config.state_folder.stat().st_uid
    except OSError:
        return 0  # nothing is there yet, or this is nobody who may know


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container, a number that has no name
        return str(uid)


def _uid(name: str) -> int | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return None


def _groups(name: str, config: Config) -> frozenset[str]:
    """Of the operating system and of the local users file."""
    found = set()
    with contextlib.suppress(KeyError):
        for number in os.getgrouplist(name, pwd.getpwnam(name).pw_gid):
            with contextlib.suppress(KeyError):
                found.add(grp.getgrgid(number).gr_name)
    if config.auth.local is not None:
        # whose file it is; OSError: nothing is there yet
        with contextlib.suppress(UsersFileError, OSError), as_owner_of(config.state_folder):
            users = UsersFile(config.auth.local.file).users()
            if name in users and not users[name].disabled:
                found |= set(users[name].groups)
    return frozenset(found)
