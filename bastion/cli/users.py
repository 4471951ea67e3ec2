"""bastion users: the users in the local file."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bastion.auth import publickey
from bastion.auth.passwords import prepared
from bastion.auth.users_file import HASHER, User, UsersFile, changing_users, check_group_name, check_user_name
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config
from bastion.errors import BastionError, printable

app = typer.Typer(no_args_is_help=True, help="The users in the local file: add, passwd, list.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name, as in ssh NAME+web.worker.1@bastion.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


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
    if from_stdin:
        try:
            password = sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise BastionError("the password on standard input is not UTF-8") from None
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt="Password, again")
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
