"""The SSH user name: who signs in, and the container that they want to enter. Pure."""

import re

from bastion.errors import Reason, Refusal
from bastion.model import INSTANCE, NAME, Address

MAX_USER_NAME = 512  # characters, the address included
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # as the configuration has it


def parse_user_name(ssh_user: str) -> tuple[str, Address | None]:
    """`alice+web.worker.1` as the user and the address; split at the last `+`, so a user `a+b` writes `a+b+`.

    No address is None. Dots belong to names as well, so `web.worker` is read from the right, as process `worker` of
    `web`, but stands for the text: it fits a container of an app `web.worker` too (see `Directory.find`).
    Raises Refusal MALFORMED_USER_NAME or MALFORMED_ADDRESS.
    """
    if len(ssh_user) > MAX_USER_NAME:
        raise _malformed_user(ssh_user, f"longer than {MAX_USER_NAME} characters")
    user, plus, text = ssh_user.rpartition("+")
    if not plus:
        user, text = ssh_user, ""
    if not user:
        raise _malformed_user(ssh_user, "empty")
    # Surrounding spaces: a directory ignores them, and one person would have two names.
    if not user.isprintable() or user != user.strip():
        raise _malformed_user(ssh_user, "has control characters, or spaces around it")
    return user, parse_address(text) if text else None


def parse_address(text: str) -> Address:
    """`[cluster/]app[.proc[.instance]]`, read from the right; `app.instance` is that instance of any process.

    `str()` of the result is `text` again. Raises Refusal MALFORMED_ADDRESS.
    """
    cluster, slash, dotted = text.rpartition("/")
    if slash and not _CLUSTER.fullmatch(cluster):
        raise _malformed_address(text, "the cluster is not a name")
    names = dotted.split(".")
    instance = None
    if len(names) > 1 and names[-1].isdecimal():
        if not INSTANCE.fullmatch(names[-1]):
            raise _malformed_address(text, "the instance is no number from 0 to 999999999 without leading zeros")
        instance = int(names.pop())
    proc = names.pop() if len(names) > 1 else None
    app = ".".join(names)
    if not NAME.fullmatch(app) or (proc is not None and not NAME.fullmatch(proc)):
        raise _malformed_address(text, "the app or the process is not a name")
    return Address(app, proc, instance, cluster or None)


def names_exactly(address: Address, container: Address) -> bool:
    """Is the container's complete address what was written? Then another that merely fits does not compete."""
    return str(address).rpartition("/")[2] == str(container).rpartition("/")[2]


def _malformed_user(ssh_user: str, problem: str) -> Refusal:
    # The client has not said who it is: nothing of what it sent is sent back.
    text = "The user name can not be used. What is right: user+app.process.instance, such as alice+web.worker.1"
    return Refusal(Reason.MALFORMED_USER_NAME, text, f"user name is {problem}: {ssh_user[:100]!a}")


def _malformed_address(text: str, problem: str) -> Refusal:
    right = "What is right after the '+': [cluster/]app[.process[.instance]], such as web.worker.1"
    return Refusal(
        Reason.MALFORMED_ADDRESS, f"The address is malformed: {problem}. {right}", f"{problem}: {text[:100]!a}"
    )
