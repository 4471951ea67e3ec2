"""Host keys: made once, never overwritten, and refused where others could read them."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from bastion.config import key_file
from bastion.errors import ConfigError


def generate(path: Path) -> bool:
    """Make the private key `path` (mode 0600, whole or not at all); False when there is something already.

    The name says which: ..._ed25519_key, ..._rsa_key (3072 bits) or ..._ecdsa_key, as `ssh-keygen -A` has it.
    Raises ConfigError.
    """
    match = re.search(r"ed25519|rsa|ecdsa", path.name)
    if match is None:
        right = "a name such as ssh_host_ed25519_key or ssh_host_rsa_key is right"
        raise ConfigError([f"{path}: found no kind of key in the name; {right}"])
    if os.path.lexists(path):
        return False
    if match[0] == "rsa":
        key = asyncssh.generate_private_key("ssh-rsa", key_size=3072)
    else:
        key = asyncssh.generate_private_key({"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}[match[0]])
    return key_file.create(path, key.export_private_key())


def load(paths: Sequence[Path]) -> list[asyncssh.SSHKey]:
    """The keys of the option ssh.host_keys. Raises ConfigError with one line for each file that is not right."""
    keys: dict[str, asyncssh.SSHKey] = {}
    problems = []
    for index, path in enumerate(paths):
        try:
            key = _load(path)
            kind = key.get_algorithm()
            if kind in keys:
                raise ValueError(f"is a second key of the kind {kind}; one of each kind is right")
            keys[kind] = key
        except ValueError as error:
            problems.append(f"ssh.host_keys[{index}]: {path} {error}")
    if problems:
        raise ConfigError(problems)
    return list(keys.values())


def _load(path: Path) -> asyncssh.SSHKey:
    """Raises ValueError with a predicate: "is ..."."""
    data = key_file.read(path)
    try:
        return asyncssh.import_private_key(data)
    except asyncssh.KeyImportError as error:
        if "Passphrase" in str(error):
            remove = f"remove it with: ssh-keygen -p -N '' -f {key_file.argument(path)}"
            raise ValueError(f"is protected by a passphrase, which nobody could type at a start; {remove}") from None
    except re.error:  # asyncssh 2.24 on some broken PEM headers
        pass
    with contextlib.suppress(asyncssh.KeyImportError, re.error):
        asyncssh.import_public_key(data)
        raise ValueError("is a public key; the private key of the pair is right")
    raise ValueError("is no private key; make another with: bastion keys init, once this one is out of the way")
