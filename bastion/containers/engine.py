"""One Docker engine: the control plane (list, inspect, create) through docker-py, in threads of its own."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, NoReturn, TypeVar

import docker
import requests
import urllib3
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig

from bastion import config
from bastion.errors import Reason, Refusal, Unavailable

T = TypeVar("T")

CONNECTIONS = 16  # threads, and so keep-alive connections: 1,000 idle ones cost the engine 150 MB

# Statuses, and words inside a 500, with which an engine says that something behind it does not answer.
_UNAVAILABLE_STATUS = {429, 502, 503, 504}
_UNAVAILABLE_WORDS = ("context deadline exceeded", "context canceled", "transport is closing", "connection refused")


class Engine:
    """An engine of the configuration. Connects at the first call: one that is down does not stop the bastion.

    `starts` and `kills` are held by whoever starts an exec or signals processes: it serves only a few at a time.
    """

    def __init__(self, section: config.Engine) -> None:
        self.section = section
        self.name = section.name
        self.cluster = section.cluster
        self.starts = asyncio.Semaphore(section.exec_starts)
        self.kills = asyncio.Semaphore(section.exec_kills)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix=f"engine-{section.name}")
        self._running: set[Future[Any]] = set()
        self._client: docker.APIClient | None = None
        self._client_lock = Lock()
        self._ssl_context: ssl.SSLContext | None = None
        self._closed = False
        self.is_podman = False  # known from the first call on

    async def call(self, function: Callable[[docker.APIClient], T], *, timeout: float | None = None) -> T:
        """Run the blocking `function` in one of this engine's threads; `timeout` in seconds, default the section's.

        Raises `Unavailable` (no answer in time) or `Refusal` (the engine's no); their user texts hide its words.
        """
        if self._closed:
            self._unavailable("the bastion is closing its connection to it")
        future = self._threads.submit(lambda: function(self._connected()))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        limit = timeout or self.section.timeout
        try:
            async with asyncio.timeout(limit):  # asyncio.wait_for may swallow a cancellation (Python 3.11)
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            self._unavailable(f"no answer within {limit:g} s", error)
        except APIError as error:
            raise self.refusal(error.status_code or 500, error.explanation or str(error)) from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._unavailable(f"{type(error).__name__}: {error}", error)

    def new_client(self) -> docker.APIClient:
        """A client of its own for a long-lived stream (events); blocks. The caller closes it.

        Raises docker's and requests' own exceptions, as its methods do.
        """
        tls: TLSConfig | bool = False
        if self.section.tls is not None:
            files = self.section.tls
            tls = TLSConfig(client_cert=(str(files.cert), str(files.key)), ca_cert=str(files.ca), verify=True)

        def client(version: str) -> docker.APIClient:
            made = docker.APIClient(
                self.section.url,
                version=version,
                timeout=self.section.timeout,  # type: ignore[arg-type] # the stub says int; requests takes a float
                tls=tls,
                max_pool_size=CONNECTIONS,
            )
            # REQUESTS_CA_BUNDLE would replace the configured CA, and HTTP_PROXY come between.
            made.trust_env = False
            return made

        with contextlib.closing(client(MINIMUM_DOCKER_API_VERSION)) as asks:  # as version="auto" does, but trusting env
            answer = asks.version(api_version=False)
        self.is_podman = any(part["Name"] == "Podman Engine" for part in answer.get("Components") or ())
        return client(str(answer["ApiVersion"]))

    async def ssl_context(self) -> ssl.SSLContext:
        """What `section.tls` says, for the data plane."""
        if self._ssl_context is None:
            assert self.section.tls is not None
            files = self.section.tls

            def load(_: docker.APIClient) -> ssl.SSLContext:
                context = ssl.create_default_context(cafile=files.ca)
                context.load_cert_chain(files.cert, files.key)
                return context

            self._ssl_context = await self.call(load)
        return self._ssl_context

    def refusal(self, status: int, words: str) -> Refusal:
        """What an error status of the Docker API means; `words` are the engine's message, for the log only."""
        log = f"engine {self.name!r} answered {status}: {words}"
        said = words.lower()
        if status == 404:
            return Refusal(Reason.NO_SUCH_CONTAINER, "The container is gone.", log)
        if status == 409 and "paused" in said:
            return Refusal(Reason.CONTAINER_PAUSED, "The container is paused; try again when it runs.", log)
        if status == 409 and ("not running" in said or "restarting" in said or "stopped" in said):
            return Refusal(Reason.CONTAINER_NOT_RUNNING, "The container is not running.", log)
        if status in _UNAVAILABLE_STATUS or (status >= 500 and any(word in said for word in _UNAVAILABLE_WORDS)):
            return self.unavailable(log)
        return Refusal(Reason.ENGINE_ERROR, "The container engine could not do this.", log)

    def unavailable(self, log: str) -> Unavailable:
        """The engine did not answer; `log` says how, for the log only."""
        text = "The container engine does not answer; please try again later."
        return Unavailable(Reason.ENGINE_UNAVAILABLE, text, log)

    async def close(self) -> None:
        """End at once what waits; what runs ends by its own time limit at the latest."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._running:
            waiting = {asyncio.wrap_future(future) for future in self._running}
            done, late = await asyncio.wait(waiting, timeout=self.section.timeout)
            for future in done | late:
                future.cancel() or future.cancelled() or future.exception()  # retrieved: nobody else will
        if self._client is not None:
            self._client.close()

    def _connected(self) -> docker.APIClient:
        """The shared client, made by the first thread that gets an answer; no lock is held while the engine is down."""
        if self._client is None:
            client = self.new_client()
            with self._client_lock:
                if self._client is None:
                    self._client = client
                    return client
            client.close()
        return self._client

    def _unavailable(self, why: str, cause: BaseException | None = None) -> NoReturn:
        raise self.unavailable(f"engine {self.name!r} at {self.section.url}: {why}") from cause
