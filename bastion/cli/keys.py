"""bastion keys: the keys that the bastion itself has, and what its CA signs."""

import asyncio
import base64
import hashlib
import re
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from bastion.audit import signing
from bastion.audit.database import upgrade
from bastion.audit.events import Event
from bastion.auth import totp
from bastion.auth.certificate import fingerprint, parse
from bastion.auth.users_file import check_user_name
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.cli.recording_keys import recordings
from bastion.cli.viewer import person
from bastion.config import Config, load_config
from bastion.control.client import tell
from bastion.errors import BastionError, printable
from bastion.ssh import host_keys, user_certificates

app = typer.Typer(no_args_is_help=True, help="The bastion's own keys, and certificates of users.")

MAX_SECONDS = 7 * 86400  # a certificate is short-lived: what lives longer belongs on a list of keys
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.callback()
def keys() -> None:
    """The bastion's own keys, and certificates of users."""


@app.command()
def init(config: ConfigFile = CONFIG_FILE) -> None:
    """Make the keys that are missing; print fingerprints, and the public key of what signs the audit log.

    Existing keys are never overwritten: users' known_hosts name the host keys, and what another is for, it opens. Keep
    the public key where nobody on this machine can change it, for `bastion audit verify --public-key`.
    """
    loaded = load_config(config)
    paths = loaded.ssh.host_keys
    made = [host_keys.generate(path) for path in paths]
    with loaded.naming_lines():
        all_keys = host_keys.load(paths)
    for path, key, new in zip(paths, all_keys, made, strict=True):
        typer.echo(f"{key.get_algorithm():<20}{key.get_fingerprint()}  {printable(str(path))}{' (new)' if new else ''}")
    path = loaded.audit.signing_key
    new = signing.generate(path)
    line = signing.load(path).public.line
    typer.echo(f"{'audit log':<20}{line}  {printable(str(path))}{' (new)' if new else ''}")
    if loaded.auth.totp is not None:
        path = loaded.auth.totp.key
        new = totp.make_key(path)
        digest = hashlib.sha256(totp.load_key(path)).hexdigest()[:16]
        typer.echo(f"{'second factors':<20}{digest}  {printable(str(path))}{' (new)' if new else ''}")
    certificates = loaded.auth.certificates
    if certificates is not None and certificates.ca_key is not None:
        new = user_certificates.make_authority(certificates.ca_key)
        (authority,) = host_keys.load([certificates.ca_key])
        shown = printable(str(certificates.ca_key))
        typer.echo(f"{'user certificates':<20}{authority.get_fingerprint()}  {shown}{' (new)' if new else ''}")


@app.command()
def sign_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user, as in ssh NAME+web.worker.1@bastion.")],
    public_key: Annotated[str, typer.Option("--key", metavar="FILE", help="Their public key; - for standard input.")],
    lifetime: Annotated[str, typer.Option(help="How long it counts: 90s, 30m, 8h, 7d at the most.")] = "1h",
    source_address: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Only from there; may be given again.")
    ] = None,
    force_command: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Run this, whatever is asked for (SSH_ORIGINAL_COMMAND).")
    ] = None,
    no_pty: Annotated[bool, typer.Option("--no-pty", help="No terminals.")] = False,
    config: ConfigFile = CONFIG_FILE,
) -> None:
    """Print a short-lived certificate of a user for a public key, signed by the bastion's own CA.

    Saved as KEY-cert.pub beside the private key, `ssh` uses it by itself. Who made it for whom is in the audit log.
    """
    loaded = load_config(config)
    section = loaded.auth.certificates
    if section is None or section.ca_key is None:
        raise BastionError(f"{printable(str(config))} has no auth.certificates.ca_key, so there is no CA to sign")
    try:
        check_user_name(name)
        networks = [str(ip_network(one)) for one in source_address or []]
    except ValueError as error:
        raise BastionError(printable(str(error))) from None
    seconds, by = _seconds(lifetime), person()
    certificate, serial = user_certificates.sign(
        section.ca_key,
        _read(public_key),
        name,
        key_id=f"{name} by {by}",
        seconds=seconds,
        source_address=networks,
        force_command=force_command,
        terminal=not no_pty,
    )
    made = parse(base64.b64decode(certificate.split()[1]))
    told = {"user": name, "key_id": made.key_id, "serial": serial, "seconds": seconds, "by": by}
    keys = {"key": fingerprint(made.key), "ca": fingerprint(made.ca)}
    asyncio.run(_tell(loaded, **told, **keys))
    typer.echo(certificate.decode().strip())


async def _tell(config: Config, **fields: object) -> None:
    await upgrade(config.database)
    await tell(config, Event.CERTIFICATE_ISSUED, **fields)


def _seconds(lifetime: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", lifetime)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= MAX_SECONDS:
        raise BastionError(f"--lifetime {printable(lifetime)}: 90s, 30m, 8h or, at the most, 7d is right")
    return seconds


def _read(public_key: str) -> bytes:
    try:
        return sys.stdin.buffer.read(65536) if public_key == "-" else Path(public_key).read_bytes()
    except OSError as error:
        raise BastionError(f"{printable(public_key)} can not be read: {error.strerror}") from None


app.command()(recordings)
