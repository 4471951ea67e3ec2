"""bastion audit: the audit log."""

import typer

from bastion.cli.tail import tail

app = typer.Typer(no_args_is_help=True, help="The audit log.")


@app.callback()
def audit() -> None:
    """The audit log."""


app.command()(tail)
