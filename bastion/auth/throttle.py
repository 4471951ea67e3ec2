"""Who has to wait: what a person does not notice, and whoever guesses passwords does.

Networks, as OpenSSH's PerSourcePenalties: each connection that ends without signing in costs its network seconds; once
they add up to `min`, nobody connects from there until they are over. Users: the more passwords were wrong, the longer
until the next one is looked at, from whichever network, except where the user has signed in from lately: else whoever
guesses at alice's password would lock out alice.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Generic, TypeVar

from bastion.auth.refusals import refused
from bastion.config import Network, Penalties
from bastion.errors import Reason, Refusal, Unavailable

CAPACITY = 65536  # networks, users, and where users signed in: what was touched longest ago is forgotten
FREE = 5  # wrong passwords of a user that cost nothing
PATIENCE = 5.0  # seconds that a password waits for its turn; where it would be longer it is refused at once
FAMILIAR = 7 * 86400.0  # seconds that a network counts as the user's after they signed in from there

K = TypeVar("K")
V = TypeVar("V")


class Offence(StrEnum):
    """How a connection ended without anybody signed in; the words are OpenSSH's."""

    AUTHFAIL = "authfail"  # tried, and failed
    NOAUTH = "noauth"  # did not even try
    GRACE_EXCEEDED = "grace_exceeded"  # was still there at login_grace_time


class _Recent(Generic[K, V]):
    """A mapping that forgets what was touched longest ago, so that strangers can't fill the memory."""

    def __init__(self) -> None:
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        return self._items.get(key)

    def put(self, key: K, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > CAPACITY:
            self._items.popitem(last=False)


@dataclass(slots=True)
class _Penalty:
    until: float
    offences: int = 0
    enforced: bool = False  # until it is over, though less than `min` is left


@dataclass(slots=True)
class _Guesses:
    failures: int = 0
    pending: int = 0  # being looked at: may be the next failures
    next_turn: float = 0.0
    last: float = 0.0


class Throttle:
    """In memory. What is told may be some seconds `ago`: other bastions saw it, or this one before its start."""

    def __init__(self, config: Penalties, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._penalties: _Recent[Network, _Penalty] = _Recent()
        self._guesses: _Recent[str, _Guesses] = _Recent()
        self._familiar: _Recent[tuple[str, Network], float] = _Recent()

    def network(self, source_ip: str) -> Network:
        """The network that answers for `source_ip`: an IPv4 address, or what one customer has of IPv6."""
        address = ip_address(source_ip.partition("%")[0])
        mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
        if mapped is not None:
            address = mapped
        prefix = self._config.ipv4_prefix if isinstance(address, IPv4Address) else self._config.ipv6_prefix
        return ip_network((address, prefix), strict=False)

    # Networks.

    def seconds_left(self, source_ip: str) -> float:
        """How long nobody may connect from there; 0 where they may."""
        penalty = self._penalties.get(self.network(source_ip))
        if penalty is None or not penalty.enforced:
            return 0.0
        return max(0.0, penalty.until - self._clock())

    def offended(self, source_ip: str, offence: Offence, ago: float = 0) -> float:
        """A connection ended without anybody signed in. Returns the seconds that are enforced now, or 0.

        Failed sign-ins and those that were waited out cost twice as much each time, until nothing was heard of the
        network for `max` seconds; connections that did not try, such as a load balancer's checks, the same each time.
        """
        network, now = self.network(source_ip), self._clock() - ago
        of_kind = [exempt for exempt in self._config.exempt if exempt.version == network.version]
        if any(network.subnet_of(exempt) for exempt in of_kind):  # type: ignore[arg-type] # they are of one version
            return 0.0
        penalty = self._penalties.get(network)
        if penalty is None or penalty.until + self._config.max < now:
            penalty = _Penalty(until=now)
        elif penalty.until <= now:
            penalty.enforced = False
        cost: float = getattr(self._config, offence.value)
        if offence is not Offence.NOAUTH:
            cost *= 2 ** min(penalty.offences, 32)
            penalty.offences += 1
        penalty.until = min(max(penalty.until, now) + cost, now + self._config.max)
        penalty.enforced = penalty.enforced or penalty.until - now >= self._config.min
        self._penalties.put(network, penalty)
        return penalty.until - now if penalty.enforced else 0.0

    # Users.

    @contextlib.asynccontextmanager
    async def turn(self, user: str, source_ip: str) -> AsyncIterator[None]:
        """Wait until a password of `user` may be looked at, which the block does: a Refusal says that it was wrong.

        Raises Refusal (THROTTLED) where that is too long to wait. Nobody has to know for it whether there is such a
        user.
        """
        guesses, wait = self._take_turn(user, source_ip)
        try:
            await asyncio.sleep(wait)
            yield
        except Unavailable:
            raise
        except Refusal:
            self.failed(user)
            raise
        finally:
            guesses.pending -= 1

    def _take_turn(self, user: str, source_ip: str) -> tuple[_Guesses, float]:
        now = self._clock()
        familiar = self._familiar.get((user, self.network(source_ip)))
        guesses = self._guesses.get(user)
        if guesses is None or guesses.last + 2 * self._config.max < now:
            guesses = _Guesses(pending=guesses.pending if guesses is not None else 0)
        wait = guesses.next_turn - now
        if familiar is not None and familiar + FAMILIAR > now:
            wait = 0.0
        elif wait > PATIENCE:
            raise refused(
                Reason.THROTTLED, f"{user}: {guesses.failures} wrong passwords; the next is looked at in {wait:.0f} s"
            )
        else:
            guesses.next_turn = max(now, guesses.next_turn) + self._interval(guesses.failures + guesses.pending)
        guesses.pending += 1
        guesses.last = now
        self._guesses.put(user, guesses)
        return guesses, max(0.0, wait)

    def failed(self, user: str, ago: float = 0) -> None:
        """A password of `user` was wrong, here or in front of another bastion."""
        now = self._clock() - ago
        guesses = self._guesses.get(user) or _Guesses()
        guesses.failures += 1
        guesses.last = max(guesses.last, now)
        guesses.next_turn = max(guesses.next_turn, now + self._interval(guesses.failures))
        self._guesses.put(user, guesses)

    def passed(self, user: str, source_ip: str, ago: float = 0) -> None:
        """`user` signed in from there, in whatever way: what others guess does not hold them up there."""
        self._familiar.put((user, self.network(source_ip)), self._clock() - ago)

    def _interval(self, failures: int) -> float:
        return 0.0 if failures <= FREE else min(2.0 ** min(failures - FREE - 1, 32), self._config.max)
