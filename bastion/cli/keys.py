"""bastion keys: the keys that the bastion itself has."""

import typer

from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import load_config
from bastion.errors import printable
from bastion.ssh import host_keys

app = typer.Typer(no_args_is_help=True, help="The bastion's own host keys.")


@app.callback()
def keys() -> None:
    """The bastion's own host keys."""


@app.command()
def init(config: ConfigFile = CONFIG_FILE) -> None:
    """Make the host keys that are missing, and print the fingerprints of all.

    Existing keys are never overwritten: users' known_hosts name them.
    """
    paths = load_config(config).ssh.host_keys
    made = [host_keys.generate(path) for path in paths]
    for path, key, new in zip(paths, host_keys.load(paths), made, strict=True):
        typer.echo(f"{key.get_algorithm():<20}{key.get_fingerprint()}  {printable(str(path))}{' (new)' if new else ''}")
