"""bastion db: the tables, and what the bastion may do with them."""

import asyncio
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bastion.audit import database, roles
from bastion.cli.options import CONFIG_FILE, ConfigFile, PasswordStdin, read_password
from bastion.config import Database, load_config
from bastion.errors import BastionError, printable

app = typer.Typer(no_args_is_help=True, help="The database's tables and the rights on them.")


@app.command()
def init(
    owner_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="BASTION_OWNER_URL",
            help="postgresql+psycopg://OWNER@HOST/DATABASE; a password better from the environment (PGPASSWORD).",
        ),
    ],
    role: Annotated[str, typer.Option(help="The PostgreSQL role that the bastion uses while it serves.")],
    password_stdin: PasswordStdin = False,
) -> None:
    """Set both roles of PostgreSQL up: the owner's tables, and a role with the least that serving needs.

    May be repeated, and is to be for each new version. A role that is there keeps its password.
    """
    right = "postgresql+psycopg://owner@host/database is right"
    try:
        url = make_url(owner_url)
    except (ArgumentError, ValueError):
        raise BastionError(f"--owner-url: {right}; this is no database URL") from None
    if url.drivername != database.POSTGRESQL:
        raise BastionError(f"--owner-url: {right}; the driver here is {printable(url.drivername)}")
    asyncio.run(database.upgrade(Database(url=SecretStr(owner_url)), "--owner-url"))
    typer.echo("The tables are those of this version.")
    with roles.as_owner(url) as connection:
        if role == roles.current(connection):
            raise BastionError(f"--role: {printable(role)} owns the tables; a role that does not is right")
        there = roles.exists(connection, role)
    password = None if there else read_password(password_stdin)
    with roles.as_owner(url) as connection:
        if password is not None:
            roles.create(connection, role, password)
        roles.grant(connection, role)
        excess = roles.excess(connection, role)
    was = "was there, and keeps its password" if there else "is new, and can log in with the password"
    typer.echo(f"The role {printable(role)} {was}.")
    typer.echo("It may read, insert, and update only the status of a session and when it changed.")
    if excess:
        typer.echo(printable(f"warning: the role may do more than serving needs: {'; '.join(excess)}"), err=True)


@app.command()
def upgrade(config: ConfigFile = CONFIG_FILE) -> None:
    """Bring the tables to this version's. With PostgreSQL, run it with the role that owns them."""
    loaded = load_config(config)
    with loaded.naming_lines():
        asyncio.run(database.upgrade(loaded.database))
    typer.echo("The tables are those of this version.")


@app.command()
def grants(
    role: Annotated[str, typer.Option(help="The PostgreSQL role that the bastion uses while it serves.")],
) -> None:
    """Print the SQL that gives a PostgreSQL role the least that serving needs; pipe it to psql.

    It may read, insert, and update only the status of a session and when it changed; it can delete nothing.
    """
    typer.echo(database.grants(role))
