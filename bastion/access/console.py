"""LAIN's console: who has a role in an app owns it. Asked anew for each session; everything but a clear yes is a no."""

import asyncio
import secrets
from collections.abc import Collection
from urllib.parse import quote

from bastion.config import LainOwners
from bastion.errors import Reason, Unavailable
from bastion.model import Identity
from bastion.remote.http import JsonClient, RemoteError
from bastion.remote.probe import Probe

AT_ONCE = 8
TIMES = 4  # so many times `timeout` for all the apps of one session
_UNAVAILABLE = "Who owns this can not be looked up at the moment; please try again."


class Console:
    """Asks with the token that the user has signed in with; who has none owns nothing by it."""

    def __init__(self, config: LainOwners, url: str) -> None:
        """Raises ConfigError where ca_file is no file of certificates."""
        self._url = f"{url.rstrip('/')}/api/v1/repos"
        self._seconds = config.timeout * TIMES
        self._client = JsonClient(config, "access.lain")

    async def owned(self, identity: Identity, apps: Collection[str]) -> frozenset[str]:
        """Those of `apps` in which the identity has a role. Raises Unavailable OWNERSHIP_UNAVAILABLE."""
        if identity.token is None:
            return frozenset()
        token, slots = identity.token, asyncio.Semaphore(AT_ONCE)

        async def owns(app: str) -> bool:
            async with slots:
                return await self._has_role(token, app)

        try:
            async with asyncio.timeout(self._seconds):
                answers = await asyncio.gather(*map(owns, apps), return_exceptions=True)
        except TimeoutError:
            raise _unavailable(f"no answer for all of {len(apps)} apps within {self._seconds:g} s") from None
        for answer in answers:
            if isinstance(answer, RemoteError):
                raise _unavailable(str(answer))
            if isinstance(answer, BaseException):
                raise answer
        return frozenset(app for app, yes in zip(apps, answers, strict=True) if yes)

    def probe(self) -> Probe:
        async def ask() -> str:
            if await self._has_role(f"check-config-{secrets.token_hex(8)}", "check-config"):
                raise RemoteError("knows a role of a made-up token")
            return "knows no role of a made-up token, as it should be"

        return Probe("LAIN", self._url, ask)

    async def close(self) -> None:
        await self._client.close()

    async def _has_role(self, token: str, app: str) -> bool:
        answer = await self._client.get(f"{self._url}/{quote(app, safe='')}/roles/", {"access-token": token})
        if answer.status in (401, 403, 404):
            return False
        if answer.status != 200:
            raise RemoteError(f"{self._url}: HTTP {answer.status}")
        role = answer.body.get("role")
        name = role.get("role") if isinstance(role, dict) else None
        return isinstance(name, str) and name != ""


def _unavailable(log_text: str) -> Unavailable:
    return Unavailable(Reason.OWNERSHIP_UNAVAILABLE, _UNAVAILABLE, f"LAIN's console: {log_text}")
