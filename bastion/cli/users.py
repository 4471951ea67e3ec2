"""bastion users: the users in the local file, and anybody's second factor."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import segno
import typer

from bastion.audit.database import create_engine, upgrade
from bastion.audit.enrolments import Enrolments
from bastion.audit.events import Event
from bastion.auth import publickey, totp
from bastion.auth.passwords import prepared
from bastion.auth.users_file import HASHER, User, UsersFile, changing_users, check_group_name, check_user_name
from bastion.cli.options import CONFIG_FILE, ConfigFile, PasswordStdin, read_password
from bastion.cli.viewer import person
from bastion.config import Config, load_config
from bastion.control.client import tell
from bastion.errors import BastionError, Unavailable, printable

app = typer.Typer(no_args_is_help=True, help="The users in the local file: add, passwd, list; enrol-totp is for all.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name, as in ssh NAME+web.worker.1@bastion.")]


@app.command()
def add(
    name: Name,
    group: Annotated[list[str] | None, typer.Option("--group", "-g", help="A group; may be given again.")] = None,
    password_stdin: PasswordStdin = False,
    authorized_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public keys; without --password-stdin the user then has no password."),
    ] = None,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Add a user, with a password, public keys, or both."""
    path = _users_file(config)
    try:
        check_user_name(name)
        groups = [check_group_name(one) for one in group or []]
    except ValueError as error:
        raise BastionError(str(error)) from None
    keys = [] if authorized_keys is None else _keys(authorized_keys)
    password = None if keys and not password_stdin else _hashed_password(password_stdin)
    with changing_users(path) as users:
        if name in users:
            raise BastionError(f"{name} is there already; `bastion users passwd {name}` sets another password")
        users[name] = User(password=password, groups=groups, authorized_keys=keys)
    typer.echo(f"{name} added to {printable(str(path))}")


@app.command()
def passwd(name: Name, password_stdin: PasswordStdin = False, config: ConfigFile = CONFIG_FILE) -> None:
    """Set a user's password; sessions that are open stay."""
    path = _users_file(config)
    _existing(UsersFile(path).users(), name)
    password = _hashed_password(password_stdin)
    with changing_users(path) as users:
        users[name] = _existing(users, name).model_copy(update={"password": password})
    typer.echo(f"{name} has a new password")


@app.command(name="list")
def list_users(config: ConfigFile = CONFIG_FILE) -> None:
    """List the users: how they may sign in, and their groups."""
    users = UsersFile(_users_file(config)).users()
    width = max([len(name) for name in users], default=0)
    for name, user in sorted(users.items()):
        ways = ["password"] * (user.password is not None)
        ways += [f"{len(user.authorized_keys)} key{'s' * (len(user.authorized_keys) > 1)}"] * bool(user.authorized_keys)
        state = "disabled" if user.disabled else ", ".join(ways) or "no way to sign in"
        typer.echo(f"{name:<{width}}  {state:<18}  {', '.join(user.groups)}".rstrip())


@app.command()
def enrol_totp(
    name: Name,
    remove: Annotated[bool, typer.Option("--remove", help="Take the second factor away instead.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Give a user, local or not, a new secret for one-time codes; the one before counts no longer.

    Prints it as an otpauth URI and as a QR code, for the user's app and nobody else's eyes. It is shown only once.
    """
    loaded = load_config(config)
    if loaded.auth.totp is None:
        raise BastionError(f"{printable(str(config))} has no section auth.totp, so nobody is asked for a code")
    try:
        check_user_name(name)
    except ValueError as error:
        raise BastionError(str(error)) from None
    key, secret = totp.load_key(loaded.auth.totp.key), totp.new_secret()
    asyncio.run(_enrol(loaded, name, None if remove else totp.encrypted(key, name, secret)))
    if remove:
        typer.echo(f"{name} has no second factor any more")
        return
    uri = totp.otpauth_uri(secret, name, loaded.auth.totp.issuer)
    typer.echo(uri)
    segno.make(uri, error="m").terminal(compact=True)


async def _enrol(config: Config, name: str, secret: bytes | None) -> None:
    await upgrade(config.database)
    change = "removed" if secret is None else "enrolled"
    await tell(config, Event.USER_SECOND_FACTOR, user=name, change=change, by=person())
    database = create_engine(config.database)
    try:
        await Enrolments(database).enrol(name, secret)
    except Unavailable as error:
        raise BastionError(error.log_text) from None
    finally:
        await database.dispose()


def _users_file(config: Path) -> Path:
    local = load_config(config).auth.local
    if local is None:
        raise BastionError(f"{printable(str(config))} has no section auth.local, so there are no local users")
    return local.file


def _existing(users: Mapping[str, User], name: str) -> User:
    if name not in users:
        raise BastionError(f"there is no user {printable(name)}; `bastion users list` shows all")
    return users[name]


def _hashed_password(from_stdin: bool) -> str:
    password = read_password(from_stdin)
    try:
        return HASHER.hash(prepared(password))
    except ValueError as error:
        raise BastionError(str(error)) from None


def _keys(file: Path) -> list[str]:
    """The lines with keys; each has to be one that the bastion can accept."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BastionError(f"{printable(str(file))} can not be read: {error}") from None
    problems, keys = [], []
    for number, line in enumerate(lines, 1):
        try:
            key = publickey.parse(line)
        except ValueError as error:
            problems.append(f"{printable(str(file))}:{number}: {error}")
            continue
        if key is not None and key.unsupported:
            names = printable(", ".join(key.unsupported))
            problems.append(f"{printable(str(file))}:{number}: the bastion can not honour {names}")
        elif key is not None:
            keys.append(line.strip())
    if problems or not keys:
        raise BastionError("\n".join(problems) or f"{printable(str(file))} has no key in it")
    return keys
