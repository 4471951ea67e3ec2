"""Host keys: made once, never overwritten, and refused where others could read them."""

import contextlib
import os
import pwd
import re
import shlex
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from bastion.errors import ConfigError

MAX_BYTES = 64 * 1024


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
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.export_private_key())
                file.flush()
                os.fsync(descriptor)
            os.link(unfinished, path)  # unlike a rename, never over a key that somebody made meanwhile
        finally:
            Path(unfinished).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError([f"{path}: can not be made: {error.strerror}"]) from None
    return True


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
    try:
        # O_NONBLOCK: a FIFO would otherwise wait here for its writer
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            _check(path, os.fstat(file.fileno()))
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ValueError("does not exist; make it with: bastion keys init") from None
    except PermissionError:
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise ValueError(f"can not be read by {user}; mend it with: chown {user} {_argument(path)}") from None
    except OSError as error:
        raise ValueError(f"can not be read: {error.strerror}") from None
    try:
        return asyncssh.import_private_key(data)
    except asyncssh.KeyImportError as error:
        if "Passphrase" in str(error):
            remove = f"remove it with: ssh-keygen -p -N '' -f {_argument(path)}"
            raise ValueError(f"is protected by a passphrase, which nobody could type at a start; {remove}") from None
    except re.error:  # asyncssh 2.24 on some broken PEM headers
        pass
    with contextlib.suppress(asyncssh.KeyImportError, re.error):
        asyncssh.import_public_key(data)
        raise ValueError("is a public key; the private key of the pair is right")
    raise ValueError("is no private key; make another with: bastion keys init, once this one is out of the way")


def _check(path: Path, status: os.stat_result) -> None:
    """Like sshd's sshkey_perm_ok: nobody but the owner; what root gives its service's group to read is fine."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a file; a private key is right")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007 or (mode & 0o077 and status.st_uid == os.geteuid()):
        raise ValueError(f"has mode {mode:04o}: others can read it; mend it with: chmod 600 {_argument(path)}")


def _argument(path: Path) -> str:
    return shlex.quote(str(path))
