"""What an OpenID provider says about itself: its metadata (OpenID Connect Discovery 1.0) and its keys (RFC 7517)."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from joserfc.jwk import Key

from bastion.auth.jwt import public_keys
from bastion.auth.refusals import unavailable
from bastion.errors import Reason, printable
from bastion.remote.http import JsonClient, RemoteError

FRESH = 15 * 60.0  # seconds; what is older is fetched again, while it is still used
TRUSTED = 6 * 3600.0  # seconds; what is older may hold keys that were withdrawn long ago
REFRESH = 60.0  # seconds between two fetches at least: anybody can make up key ids

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What was fetched, at `at` (monotonic)."""

    metadata: Mapping[str, object]
    keys: Sequence[Key]
    at: float

    def endpoint(self, name: str) -> str:
        """Raises Unavailable where the provider has none of that name."""
        url = self.metadata.get(name)
        if not isinstance(url, str):
            raise unavailable(f"the OpenID provider's metadata have no {name}", Reason.SSO_UNAVAILABLE)
        return url


class Issuer:
    """Fetches at the first need; one fetch at a time, that all who need it wait for."""

    def __init__(self, issuer: str, client: JsonClient) -> None:
        self.name = issuer
        self._client = client
        self._known: Known | None = None
        self._fetching: asyncio.Task[Known] | None = None
        self._tried_at: float | None = None

    async def known(self) -> Known:
        """Raises Unavailable where nothing is known that may still be trusted."""
        age = time.monotonic() - self._known.at if self._known is not None else TRUSTED
        if self._known is None or age >= TRUSTED:
            return await self._fetched()
        if age >= FRESH and self._may_ask_again():
            self._fetch()  # nobody waits for it
        return self._known

    async def newer(self, than: Known) -> Known:
        """What is known after a look for new keys; `than` again where the last one was less than a minute ago."""
        if self._known is not None and self._known is not than:
            return self._known
        if self._fetching is None and not self._may_ask_again():
            return than
        return await self._fetched()

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _may_ask_again(self) -> bool:
        return self._tried_at is None or time.monotonic() - self._tried_at >= REFRESH

    async def _fetched(self) -> Known:
        try:
            return await asyncio.shield(self._fetch())
        except RemoteError as error:
            raise unavailable(f"OpenID provider {self.name}: {error}", Reason.SSO_UNAVAILABLE) from None

    def _fetch(self) -> asyncio.Task[Known]:
        if self._fetching is None:
            self._tried_at = time.monotonic()
            self._fetching = asyncio.create_task(self._ask())
            self._fetching.add_done_callback(self._done)
        return self._fetching

    def _done(self, task: asyncio.Task[Known]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _log.warning("OpenID provider %s: %s", self.name, error)
        else:
            self._known = task.result()

    async def _ask(self) -> Known:
        answer = await self._client.get(f"{self.name.rstrip('/')}/.well-known/openid-configuration")
        if answer.status != 200:
            raise RemoteError(f"no metadata: HTTP {answer.status}")
        if answer.body.get("issuer") != self.name:  # section 4.3: else it could speak for another
            raise RemoteError(f"its metadata are those of {printable(repr(answer.body.get('issuer'))[:200])}")
        url = answer.body.get("jwks_uri")
        if not isinstance(url, str):
            raise RemoteError("its metadata have no jwks_uri")
        jwks = await self._client.get(url)
        keys = public_keys(jwks.body) if jwks.status == 200 else []
        if not keys:
            raise RemoteError(f"no key at {printable(url[:200])} that could verify a token (HTTP {jwks.status})")
        return Known(answer.body, keys, time.monotonic())
