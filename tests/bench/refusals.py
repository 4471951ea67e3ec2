"""Does the time of an answer tell whether there is such a user? Two distributions for each way to sign in.

The answer to a wrong password or key is a refusal; to somebody who comes with a browser, the link.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import asyncssh
from rich.table import Table

from bastion.auth.users_file import HASHER, User, changing_users
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import docker_engine
from tests.servers.oidc import CLIENT, SCOPE, SECRET, Provider, oidc_provider

NAMES = ("refusal-password", "refusal-key", "refusal-browser")
METHODS = {"refusal-password": "password", "refusal-key": "publickey", "refusal-browser": "keyboard-interactive"}
TRIES = 200  # of each kind of user
EACH = 4  # tries a user: so few that nobody is throttled


class Client(asyncssh.SSHClient):
    """Tries once, and takes the time from the request to the answer."""

    def __init__(self, key: asyncssh.SSHKey | None) -> None:
        self.seconds = 0.0
        self._key = key
        self._asked: float | None = None

    def _once(self) -> bool:
        now = time.perf_counter()
        if self._asked is None:
            self._asked = now
            return True
        self.seconds = now - self._asked
        return False

    def password_auth_requested(self) -> str | None:
        return "wrong" if self._key is None and self._once() else None

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._asked is None else None

    def kbdint_challenge_received(self, *shown: object) -> list[str] | None:
        """First a password is asked for; Enter goes to the browser, and what comes then is the link."""
        return [""] if self._once() else None

    def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
        return self._key if self._key is not None and self._once() else None


async def answered_after(bastion: Bastion, user: str, method: str, key: asyncssh.SSHKey | None) -> float:
    client = Client(key)
    with contextlib.suppress(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            bastion.port,
            username=user,
            client_factory=lambda: client,
            known_hosts=None,
            config=None,
            agent_path=None,
            client_keys=None,
            preferred_auth=method,
        )
    assert client.seconds > 0
    return client.seconds


async def distributions(bastion: Bastion, name: str) -> tuple[list[float], list[float]]:
    """Seconds until users that there are were answered, and users that there are not, in turns."""
    key = asyncssh.generate_private_key("ssh-ed25519") if name == "refusal-key" else None
    known: list[float] = []
    unknown: list[float] = []
    tries = [(kind, number) for kind in ("user", "nobody") for number in range(TRIES // EACH) for _ in range(EACH)]
    random.shuffle(tries)
    for kind, number in tries:
        taken = await answered_after(bastion, f"{kind}{number}", METHODS[name], key)
        (known if kind == "user" else unknown).append(taken)
    return known, unknown


def with_browser(provider: Provider) -> dict[str, object]:
    """The section `auth`, beside the users file."""
    client = {"client_id": CLIENT, "client_secret": SECRET, "audience": [CLIENT], "scope": SCOPE}
    return {"oidc": {"issuer": provider.issuer, "ca_file": str(provider.ca_file), "device_flow": True, **client}}


def farthest(one: Sequence[float], other: Sequence[float]) -> float:
    """The Kolmogorov-Smirnov distance: 0 where they are the same, 1 where a time tells whose it is."""
    return max(
        abs(sum(value <= at for value in one) / len(one) - sum(value <= at for value in other) / len(other))
        for at in [*one, *other]
    )


def measure(names: Sequence[str]) -> Table:
    table = Table("answer to", "5 %, ms", "median, ms", "95 %, ms", "distance", title="Is there such a user?")
    with tempfile.TemporaryDirectory(prefix="bb-") as folder, docker_engine(Path(folder)) as engine:
        with changing_users(Path(folder, "users.yaml")) as users:
            secret = HASHER.hash("right")
            users.update({f"user{number}": User(password=secret) for number in range(TRIES // EACH)})
        Path(folder, "oidc").mkdir()
        with (
            oidc_provider(Path(folder, "oidc"), seconds=36_000) as provider,
            serving(Path(folder), engine.url, auth=with_browser(provider)) as bastion,
        ):
            for name in names:
                known, unknown = asyncio.run(distributions(bastion, name))
                for who, times in (("a user", known), ("nobody", unknown)):
                    marks = statistics.quantiles(times, n=20)
                    cells = [f"{1000 * seconds:.2f}" for seconds in (marks[0], statistics.median(times), marks[-1])]
                    distance = "" if who == "a user" else f"{farthest(known, unknown):.2f}"
                    table.add_row(f"{name.removeprefix('refusal-')}, {who}", *cells, distance)
    # For 200 and 200 of the same distribution the distance is larger than this in one of twenty measurements.
    table.title = f"{table.title} ({TRIES} tries each; a distance of up to 0.14 is chance)"
    return table
