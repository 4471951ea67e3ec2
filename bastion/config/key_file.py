"""Files of private keys: made once, whole or not at all, and read only where nobody else can read them."""

import os
import pwd
import shlex
import stat
import tempfile
from pathlib import Path

from bastion.errors import ConfigError

MAX_BYTES = 64 * 1024


def create(path: Path, content: bytes) -> bool:
    """Make `path` (mode 0600) and its folder; False where there is something already. ConfigError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            try:
                os.link(unfinished, path)  # unlike a rename, never over a key that somebody made meanwhile
            except FileExistsError:
                return False
        finally:
            Path(unfinished).unlink()
    except OSError as error:
        raise ConfigError([f"{path}: can not be made: {error.strerror}"]) from None
    return True


def read(path: Path) -> bytes:
    """Its content, at most MAX_BYTES. Raises ValueError with a predicate: "is ..."."""
    try:
        # O_NONBLOCK: a FIFO would otherwise wait here for its writer
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            _check(path, os.fstat(file.fileno()))
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ValueError("does not exist; make it with: bastion keys init") from None
    except PermissionError:
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise ValueError(f"can not be read by {user}; mend it with: chown {user} {argument(path)}") from None
    except OSError as error:
        raise ValueError(f"can not be read: {error.strerror}") from None


def argument(path: Path) -> str:
    """As a shell takes it."""
    return shlex.quote(str(path))


def _check(path: Path, status: os.stat_result) -> None:
    """Like sshd's sshkey_perm_ok: nobody but the owner; what root gives its service's group to read is fine."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a file; a private key is right")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007 or (mode & 0o077 and status.st_uid == os.geteuid()):
        raise ValueError(f"has mode {mode:04o}: others can read it; mend it with: chmod 600 {argument(path)}")
