"""bastion db: the tables, and what the bastion may do with them."""

import asyncio
from typing import Annotated

import typer

from bastion.audit import database
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config

app = typer.Typer(no_args_is_help=True, help="The database's tables and the rights on them.")


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
