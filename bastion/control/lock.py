"""The state folder, and who may write the log of its bastion now: one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from bastion.errors import ConfigError, printable


def make_folder(folder: Path) -> None:
    """Make the state folder, 0700, where it is missing. Made by root, it belongs to the owner of the one above.

    Raises ConfigError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
        if os.geteuid() == 0:
            above = folder.parent.stat()
            os.chown(folder, above.st_uid, above.st_gid)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError([f"state_folder: {printable(str(folder))} can not be made: {error.strerror}"]) from None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Be the one process that writes this bastion's log; False where another is. Raises ConfigError.

    The kernel gives the lock back when the process ends, however it ends.
    """
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError([f"state_folder: {printable(str(folder))} can not be used: {error.strerror}"]) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Root acts as the owner of `folder` meanwhile: it makes no file that the bastion could not write to later."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
