"""bastion check-config: everything about the configuration that can be known without serving."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.engine import make_url

from bastion.auth.certificates import Certificates, RevokedKeys
from bastion.auth.totp import load_key as load_totp_key
from bastion.cli.connect import tried
from bastion.cli.options import CONFIG_FILE, ConfigFile
from bastion.config import Config, load_config
from bastion.errors import ConfigError, printable
from bastion.ssh import host_keys

_ASKED = {
    "enrolled": "who is enrolled",
    "everyone": "everyone",
    "by_rule": "who goes where a rule of access wants it",
}


def check_config(
    config: ConfigFile = CONFIG_FILE,
    connect: Annotated[bool, typer.Option("--connect", help="Also try every server that it names.")] = False,
) -> None:
    """Check the configuration without serving.

    Prints every problem at once and ends with status 1; where there is none, what the bastion would do, and 0.
    """
    loaded = load_config(config)
    with loaded.naming_lines():
        if problems := _problems(loaded):
            raise ConfigError(problems)
    keys = host_keys.load(loaded.ssh.host_keys)
    rows = [("listen", address) for address in loaded.ssh.listen]
    rows += [("host key", f"{key.get_algorithm()} {key.get_fingerprint()}") for key in keys]
    rows += _methods(loaded)
    if loaded.auth.certificates is not None:
        rows += [("user CA", one) for one in Certificates(loaded.auth.certificates, RevokedKeys(None)).fingerprints]
    if loaded.auth.revoked_keys is not None:
        rows.append(("revoked", str(loaded.auth.revoked_keys)))
    if loaded.auth.totp is not None:
        rows.append(("then", f"a one-time code, from {_ASKED[loaded.auth.totp.ask]}"))
    for engine in loaded.engines:
        cluster = f", cluster {engine.cluster}" if engine.cluster else ""
        rows.append(("engine", f"{engine.name}{cluster}: {engine.url}{' with TLS' if engine.tls else ''}"))
    rows.append(("recordings", f"{loaded.recording.folder} (writable), {loaded.recording.mode}"))
    rows.append(("database", make_url(loaded.database.url.get_secret_value()).render_as_string(hide_password=True)))
    if loaded.audit.file is not None:
        rows.append(("audit log", str(loaded.audit.file)))
    if loaded.audit.stdout:
        rows.append(("audit log", "standard output"))
    for label, text in rows:
        typer.echo(f"{label:<12}{printable(text)}")
    if connect:
        asyncio.run(_connect(loaded))


async def _connect(config: Config) -> None:
    """Try the servers, and say what was found as soon as it is known. Raises ConfigError at the end."""
    logging.getLogger("bastion").setLevel(logging.CRITICAL)  # what goes wrong is said here
    problems = []
    async for well, kind, found in tried(config):
        if well:
            typer.echo(f"{'found':<12}{kind} {found}")
        else:
            problems.append(f"{kind} {found}")
    if problems:
        raise ConfigError(problems)


def _problems(config: Config) -> list[str]:
    """All that is wrong with the files that the configuration names."""
    loads: list[Callable[[], object]] = [partial(host_keys.load, config.ssh.host_keys)]
    if config.auth.totp is not None:
        loads.append(partial(load_totp_key, config.auth.totp.key))
    if config.auth.certificates is not None:
        loads.append(partial(Certificates, config.auth.certificates, RevokedKeys(None)))
    problems: list[str] = []
    for load in loads:
        try:
            load()
        except ConfigError as error:
            problems += error.problems
    return problems + _not_writable(config)


def _methods(config: Config) -> list[tuple[str, str]]:
    rows = []
    if config.auth.local is not None:
        users = "" if os.access(config.auth.local.file, os.F_OK) else " (does not exist yet: bastion users add)"
        rows.append(("sign in", f"local users of {config.auth.local.file}{users}"))
    if config.auth.ldap is not None:
        rows.append(("sign in", f"LDAP at {', '.join(config.auth.ldap.servers)}"))
    if config.auth.oidc is not None:
        browser = ", also with a browser" if config.auth.oidc.device_flow else ""
        rows.append(("sign in", f"tokens of {config.auth.oidc.issuer}{browser}"))
    if config.auth.lain is not None:
        rows.append(("sign in", f"tokens of LAIN at {config.auth.lain.sso}"))
    return rows


def _not_writable(config: Config) -> list[str]:
    """A line for each folder in which the bastion could not make its files."""
    folders = {"recording.folder": config.recording.folder, "state_folder": config.state_folder}
    if config.audit.file is not None:
        folders["audit.file"] = config.audit.file.parent
    url = make_url(config.database.url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database:
        folders["database.url"] = Path(url.database).parent
    return [
        f"{option}: nothing can be made in {folder}; a folder that this user may write to is right"
        for option, folder in folders.items()
        if not _writable(folder)
    ]


def _writable(folder: Path) -> bool:
    """True also of a folder that is not there yet and can be made."""
    existing = next(one for one in (folder, *folder.parents) if os.access(one, os.F_OK))
    try:
        with tempfile.TemporaryFile(dir=existing):  # what os.access says of /proc, to root, is not true
            return True
    except OSError:
        return False
