"""The file with the local users: read again when it has changed, and written whole or not at all."""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import argon2
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from bastion.auth import publickey
from bastion.auth.user_name import why_malformed
from bastion.errors import BastionError, printable

# OWASP's and RFC 9106's advice for servers under load: 19 MiB and about 30 ms a try
HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
HEADER = "# Written by `bastion users`; comments do not stay. Keep it readable for the bastion only.\n"
LOCK_SECONDS = 10


class UsersFileError(BastionError):
    """The users file can not be used; the text says why, and what would be right."""


def check_user_name(value: str) -> str:
    """`value`; raises ValueError with what would be right."""
    problem = why_malformed(value)
    if problem is not None:
        raise ValueError(problem)
    return value


def check_group_name(value: str) -> str:
    """`value`; raises ValueError: `bastion.owners` has commas between the names."""
    if not value or not value.isprintable() or "," in value or value != value.strip():
        raise ValueError("a group name without commas and control characters is right")
    return value


def _argon2_hash(value: str) -> str:
    try:
        argon2.extract_parameters(value)
    except argon2.exceptions.InvalidHashError:
        raise ValueError("an argon2 hash is right: `bastion users passwd NAME` makes it") from None
    return value


class User(BaseModel):
    """What the file says about one user."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    password: Annotated[str, AfterValidator(_argon2_hash)] | None = None  # none: keys only
    groups: list[Annotated[str, AfterValidator(check_group_name)]] = []
    authorized_keys: list[str] = []
    disabled: bool = False


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    users: dict[Annotated[str, AfterValidator(check_user_name)], User]  # no default: an empty file was cut short


class _Loader(yaml.SafeLoader):
    """A user who is there twice might be disabled in one place only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem="found the same name twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        made: dict[object, object] = super().construct_mapping(node, deep)
        return made


class UsersFile:
    """The users as the file has them now; not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._users: Mapping[str, User] = {}

    def users(self) -> Mapping[str, User]:
        """Raises UsersFileError: without a file that is right and safe nobody can be told apart from anybody."""
        with _opened(self._path) as (file, status):
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if version != self._version:
                self._users = _parsed(self._path, _contents(self._path, file))
                # a change in the same tick of the file system's clock would not be seen
                settled = time.time_ns() - status.st_ctime_ns > 100_000_000
                self._version = version if settled else None
        return self._users


@contextlib.contextmanager
def changing_users(path: Path) -> Iterator[dict[str, User]]:
    """The users, to be changed; written at the end, unless an exception ends it. Raises UsersFileError.

    One writer at a time; a reader sees the old file or the new one. A new file has mode 0600 and its folder's owner;
    one that is there keeps owner and mode.
    """
    path = path.resolve()  # the file, not the symlink, is replaced
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsersFileError(f"{path.parent}: {error.strerror}; make this folder first") from None
    try:
        _lock(folder, path)
        users: dict[str, User] = {}
        status: os.stat_result | None = None
        if path.exists():
            with _opened(path) as (file, status):
                users = _parsed(path, _contents(path, file))
        yield users
        _write(path, users, status, folder)
    except OSError as error:
        raise UsersFileError(f"{path}: can not be written: {error.strerror}") from None
    finally:
        os.close(folder)


def _lock(folder: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UsersFileError(f"{path}: somebody else has been changing it for {LOCK_SECONDS} s") from None
            time.sleep(0.05)


def _write(path: Path, users: Mapping[str, User], old: os.stat_result | None, folder: int) -> None:
    document = {"users": {name: user.model_dump(exclude_defaults=True) for name, user in users.items()}}
    owner = old or os.fstat(folder)
    new, temporary = tempfile.mkstemp(dir=path.parent, prefix=".users-")  # mode 0600
    try:
        with os.fdopen(new, "w", encoding="utf-8") as file:
            file.write(HEADER)
            yaml.safe_dump(document, file, sort_keys=False, allow_unicode=True, width=100_000)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(new, owner.st_uid, owner.st_gid)
            os.fchmod(new, stat.S_IMODE(old.st_mode) if old else 0o600)
            os.fsync(new)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    os.fsync(folder)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of a file that nobody else can have written, or read the hashes of."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for its writer
    except FileNotFoundError:
        raise UsersFileError(f"{path} is missing: `bastion users add NAME` makes it") from None
    except OSError as error:
        raise UsersFileError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UsersFileError(f"{path} is no regular file")
        if status.st_mode & 0o027:
            mode = stat.S_IMODE(status.st_mode)
            raise UsersFileError(f"{path} has mode {mode:04o}, others may read or change it: chmod 600 {path}")
        if status.st_uid not in (0, os.geteuid()):
            raise UsersFileError(f"{path} belongs to user id {status.st_uid}: chown it to {os.geteuid()}")
        yield file, status
    finally:
        os.close(file)


def _contents(path: Path, file: int) -> bytes:
    try:
        with os.fdopen(file, "rb", closefd=False) as stream:
            return stream.read()
    except OSError as error:
        raise UsersFileError(f"{path}: {error.strerror}") from None


def _parsed(path: Path, contents: bytes) -> dict[str, User]:
    """Raises UsersFileError, which shows nothing of the contents: they are hashes."""
    try:
        document = _Document.model_validate(yaml.load(contents, _Loader))  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsersFileError(f"{path}:{line}: {printable(error.problem or 'not YAML')}") from None
    except ValidationError as error:
        problems = [f"{printable('.'.join(map(str, one['loc'])))}: {printable(one['msg'])}" for one in error.errors()]
        raise UsersFileError(f"{path}: {'; '.join(problems)}") from None
    except Exception as error:  # what PyYAML raises is not all YAMLError
        raise UsersFileError(f"{path}: not YAML in UTF-8 ({type(error).__name__})") from None
    return document.users


def authorized_keys(user: User) -> tuple[list[publickey.AuthorizedKey], list[str]]:
    """The user's keys, and what is wrong with the lines that hold none: such a line lets nobody in."""
    keys, problems = [], []
    for number, line in enumerate(user.authorized_keys, 1):
        try:
            key = publickey.parse(line)
        except ValueError as error:
            problems.append(f"authorized_keys {number}: {error}")
        else:
            keys += [key] if key else []
    return keys, problems
