"""JSON over HTTP from servers that are not to be trusted with our time or memory; aiohttp stays behind this door."""

import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import orjson

from bastion.config import Remote, why_not_url
from bastion.errors import ConfigError, printable
from bastion.remote.breaker import Breaker, RestingError

MAX_BYTES = 1 << 20  # of an answer
MAX_CONNECTIONS = 16  # at a time, of one client


class RemoteError(Exception):
    """The server can not be reached, can not be trusted or gave no answer; the text is safe to be logged."""


class NoAnswerError(RemoteError):
    """It keeps whoever asks waiting, or hangs up: it is left alone for a while. A quick "no" costs nobody's time.

    So nobody can have it left alone who has found a token that it answers with an error.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the JSON object of the answer; {} where there is none and `status` is not 200."""

    status: int
    body: Mapping[str, object]


class JsonClient:
    """Asks servers over HTTP: each question is over in time, and a server that fails is left alone.

    A redirect is no answer: it would take a token to somebody whom nobody has named. The environment's HTTPS_PROXY is
    used; it sees no more than the servers' names.
    """

    def __init__(self, section: Remote, option: str) -> None:
        """`option` is the section's name; raises ConfigError where its ca_file holds no certificates."""
        self._seconds = section.timeout
        self._allow_cleartext = section.allow_cleartext
        try:
            tls = ssl.create_default_context(cafile=section.ca_file)
        except OSError as error:  # ssl.SSLError is one
            text = f"{option}.ca_file: {section.ca_file} holds no certificates in PEM: {error}"
            raise ConfigError([text]) from None
        self._breakers: dict[str, Breaker] = {}  # by scheme, host and port
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "bastion"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Raises RemoteError."""
        return await self._ask("GET", url, headers, None)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """Send `form` as application/x-www-form-urlencoded. Raises RemoteError."""
        return await self._ask("POST", url, headers, form)

    async def close(self) -> None:
        await self._session.close()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, form: Mapping[str, str] | None
    ) -> Answer:
        problem = why_not_url(url, allow_cleartext=self._allow_cleartext)
        if problem is not None:
            raise RemoteError(f"{printable(url[:200])}: {problem}")
        parts = urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}"
        try:
            with self._breakers.setdefault(server, Breaker()).attempt(NoAnswerError):
                return await self._answer(method, url, headers, form)
        except (RemoteError, RestingError) as error:
            raise RemoteError(f"{server}: {error}") from None

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None, form: Mapping[str, str] | None
    ) -> Answer:
        what = f"{method} {urlsplit(url).path}"
        try:
            async with self._session.request(
                method, url, headers=headers, data=form, allow_redirects=False, proxy=_proxy(url)
            ) as response:
                status = response.status
                if status >= 500 or status == 429 or 300 <= status < 400:
                    raise RemoteError(f"answered {what} with HTTP {status}")
                body = await _body(response)
        except TimeoutError:
            raise NoAnswerError(f"no answer to {what} within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # the last one: answers that are no HTTP
            raise NoAnswerError(printable(f"{type(error).__name__}: {error}"[:300])) from None
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = None
        if isinstance(parsed, dict):
            return Answer(status, parsed)
        if status == 200:
            raise RemoteError(f"answered {what} with what is no JSON object")
        return Answer(status, {})


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """As it is: what is compressed could be a thousand times as much. Raises RemoteError."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RemoteError(f"sends its answer as {printable(encoding[:40])}, which was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise RemoteError(f"sends an answer of more than {MAX_BYTES >> 20} MiB")
    return bytes(body)


def _proxy(url: str) -> str | None:
    """For https:// only, where it carries what it can not read."""
    parts = urlsplit(url)
    if parts.scheme != "https" or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get("https")
