"""bastion keys: the keys that the bastion itself has."""

import hashlib

import typer

from bastion.auth import totp
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
    """Make the keys that are missing, and print the fingerprints of all.

    Existing keys are never overwritten: users' known_hosts name the host keys, and what another is for, it opens.
    """
    loaded = load_config(config)
    paths = loaded.ssh.host_keys
    made = [host_keys.generate(path) for path in paths]
    for path, key, new in zip(paths, host_keys.load(paths), made, strict=True):
        typer.echo(f"{key.get_algorithm():<20}{key.get_fingerprint()}  {printable(str(path))}{' (new)' if new else ''}")
    if loaded.auth.totp is not None:
        path = loaded.auth.totp.key
        new = totp.make_key(path)
        digest = hashlib.sha256(totp.load_key(path)).hexdigest()[:16]
        typer.echo(f"{'second factors':<20}{digest}  {printable(str(path))}{' (new)' if new else ''}")
