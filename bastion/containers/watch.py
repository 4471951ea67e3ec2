"""One engine's containers, kept current: its event stream first, then a listing, then the events in their order."""

import asyncio
import contextlib
import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
from urllib3.exceptions import ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from bastion.containers.engine import Engine
from bastion.containers.labels import address_of, is_protected
from bastion.containers.mounts import Mount, guarded
from bastion.errors import Refusal
from bastion.model import Container, ContainerState

_log = logging.getLogger(__name__)

Callback = Callable[[ContainerState], None]

IDLE = 30.0  # seconds without an event after which the stream is opened anew, so that a dead connection is noticed
RELIST = 60.0  # seconds; an engine drops events, without a word, for whoever reads them too slowly (moby's pubsub)
MAX_WAITING = 10_000  # events that may wait for the event loop; with more of them the stream is given up
FIRST_RETRY, LAST_RETRY = 0.1, 3.0  # seconds between tries to reach an engine that is down

# State.Status of ContainerList and ContainerInspect; all others are STOPPED to a session
_STATES = {"running": ContainerState.RUNNING, "paused": ContainerState.PAUSED}
# Action of SystemEvents: what a container is then. Podman says "remove", and filters by its own "died" what it calls
# "die" in the event.
_ACTIONS = {
    "start": ContainerState.RUNNING,
    "unpause": ContainerState.RUNNING,
    "pause": ContainerState.PAUSED,
    "die": ContainerState.STOPPED,
    "destroy": ContainerState.STOPPED,
    "remove": ContainerState.STOPPED,
}
_FILTERS = json.dumps({"type": ["container"], "event": [*_ACTIONS, "died", "create", "rename"]})


def state_of(status: str) -> ContainerState:
    """What a State.Status of the Docker API means to a session."""
    return _STATES.get(status, ContainerState.STOPPED)


@dataclass(frozen=True)
class _Listing:
    states: dict[str, ContainerState] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)


class Watch:
    """What one engine has, as of its last event; `in_sync` is False while nobody can know.

    A restart that falls into a gap between two streams whole is not told to subscribers: the exec's own stream has
    ended with the container then.
    """

    def __init__(
        self, engine: Engine, protected: tuple[str, ...], own: tuple[str, ...], folders: tuple[Path, ...]
    ) -> None:
        self.engine = engine
        self.in_sync = False
        self.containers: dict[str, Container] = {}  # those that have an address, by id
        self._states: dict[str, ContainerState] = {}  # of all
        self._protected = (*protected, *own)
        self._own = own
        self._folders = folders
        self._guarded = guarded(engine.section.url, folders, None)
        self._callbacks: defaultdict[str, list[Callback]] = defaultdict(list)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"events-{engine.name}")
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns after the first listing, or when it is known that the engine does not answer."""
        self._task = asyncio.create_task(self._run(), name=f"watch engine {self.engine.name}")
        await self._tried.wait()

    async def close(self) -> None:
        """End the stream and its thread; returns when both are gone."""
        self.in_sync = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._thread.shutdown()  # nothing runs in it any more

    def container(
        self,
        container_id: str,
        name: str,
        image: str,
        labels: Mapping[str, str],
        state: ContainerState,
        mounts: Iterable[Mount] = (),
    ) -> Container | None:
        """The container with its address; None where its labels give none. Events do not tell of mounts."""
        address = address_of(labels, name, self.engine.cluster)
        if address is None:
            return None
        protected = is_protected(container_id, name, labels, self._protected) or self._guarded.mounted(mounts)
        return Container(self.engine.name, container_id, name, image, labels, state, address, protected)

    def subscribe(self, container_id: str, callback: Callback) -> Callable[[], None]:
        """Call back with each new state of the container; what is returned ends that, once or more often."""
        self._callbacks[container_id].append(callback)

        def unsubscribe() -> None:
            callbacks = self._callbacks.get(container_id, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks:
                self._callbacks.pop(container_id, None)

        return unsubscribe

    async def _run(self) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                await _Following(self, self._thread).run()
                retry = FIRST_RETRY
                continue
            except Exception as error:  # whatever it is: what is not known to be current must not look current
                if self.in_sync:
                    retry = FIRST_RETRY
                self._lost(error.log_text if isinstance(error, Refusal) else f"{type(error).__name__}: {error}")
            self._tried.set()
            await asyncio.sleep(retry)
            retry = min(2 * retry, LAST_RETRY)

    def _lost(self, why: str) -> None:
        if self.in_sync or not self._tried.is_set():
            _log.warning("engine %r is out of sight, its containers can not be entered: %s", self.engine.name, why)
        self.in_sync = False

    def ask(self, client: docker.APIClient) -> _Listing:
        """Ask the engine for all containers (ContainerList); blocks, and thousands take some time to read."""
        listing, items = _Listing(), client.containers(all=True)
        for item in items:
            if item["Id"].startswith(self._own):
                # asked for by itself: a listing does not say where volumes are
                mounts = client.inspect_container(item["Id"])["Mounts"]
                self._guarded = guarded(self.engine.section.url, self._folders, mounts)
        for item in items:
            container_id, state = item["Id"], state_of(item["State"])
            # A legacy link shows as a further name, "/other/alias".
            names = [name[1:] for name in item["Names"] or [] if name.count("/") == 1]
            listing.states[container_id] = state
            container = self.container(
                container_id,
                names[0] if names else "",
                item["Image"],
                item["Labels"] or {},
                state,
                item.get("Mounts") or (),
            )
            if container is not None:
                listing.containers[container_id] = container
        return listing

    def inspected(self, client: docker.APIClient, container_id: str) -> Container | None:
        """Ask the engine for one container (ContainerInspect); blocks. None where it has no address any more."""
        now = client.inspect_container(container_id)
        labels, image, name = now["Config"]["Labels"] or {}, now["Config"]["Image"], now["Name"].removeprefix("/")
        state = state_of(now["State"]["Status"])
        return self.container(now["Id"], name, image, labels, state, now.get("Mounts") or ())

    def listed(self, listing: _Listing) -> None:
        """Take over what was listed, and tell subscribers what they missed."""
        before, self._states, self.containers = self._states, listing.states, listing.containers
        for container_id in tuple(self._callbacks):
            new = self._states.get(container_id, ContainerState.STOPPED)
            if before.get(container_id, ContainerState.STOPPED) is not new:
                self._tell(container_id, new)

    def synchronised(self) -> None:
        """What is known is current."""
        if not self.in_sync:
            _log.info("engine %r is in sight, with %d containers", self.engine.name, len(self.containers))
        self.in_sync = True
        self._tried.set()

    def apply(self, event: dict[str, Any]) -> None:
        """Take over one event of a container (SystemEvents)."""
        container_id, action = event["Actor"]["ID"], event["Action"]
        attributes: dict[str, str] = event["Actor"]["Attributes"]
        if action == "create":
            if container_id in self._states:
                return  # the listing has it, and knows more
            # The event mixes the labels with the image and the name.
            labels = {key: value for key, value in attributes.items() if key not in {"image", "name"}}
            self._states[container_id] = ContainerState.STOPPED
            made = self.container(
                container_id, attributes.get("name", ""), attributes.get("image", ""), labels, ContainerState.STOPPED
            )
            if made is not None:
                self.containers[container_id] = made
        elif container_id not in self._states:
            return  # gone before the listing
        elif action == "rename":
            known = self.containers.pop(container_id, None)
            renamed = known and self.container(
                container_id, attributes.get("name", ""), known.image, known.labels, known.state
            )
            if known is not None and renamed is not None:
                # what it mounts is not in the event
                self.containers[container_id] = replace(renamed, protected=renamed.protected or known.protected)
        elif action in _ACTIONS:
            self._change(container_id, _ACTIONS[action])
            if action in {"destroy", "remove"}:
                del self._states[container_id]
                self.containers.pop(container_id, None)

    def _change(self, container_id: str, state: ContainerState) -> None:
        if self._states[container_id] is state:
            return
        self._states[container_id] = state
        if container_id in self.containers:
            self.containers[container_id] = replace(self.containers[container_id], state=state)
        self._tell(container_id, state)

    def _tell(self, container_id: str, state: ContainerState) -> None:
        for callback in tuple(self._callbacks.get(container_id, ())):
            try:
                callback(state)
            except Exception:
                _log.exception("a subscriber to container %s failed", container_id)


class _Following:
    """One event stream from beginning to end, read in a thread, and the listings beside it."""

    def __init__(self, watch: Watch, thread: ThreadPoolExecutor) -> None:
        self._watch = watch
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[BaseHTTPResponse] = self._loop.create_future()
        self._waiting = threading.Semaphore(MAX_WAITING)
        self._held: list[dict[str, Any]] | None = None  # events that wait for the end of a listing

    async def run(self) -> None:
        """Returns when the stream was idle, and is to be opened anew; raises what else ended it."""
        reading = self._loop.run_in_executor(self._thread, self._read)
        either: set[asyncio.Future[Any]] = {reading, self._opened}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            while not reading.done():
                await self._list()
                await asyncio.wait({reading}, timeout=RELIST)
            reading.result()
        finally:
            # A thread can not be cancelled: until the stream is open, it ends by its time limits.
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                with contextlib.suppress(RuntimeError, ValueError, OSError):  # it ends by itself in this moment
                    self._opened.result().shutdown()
            await asyncio.wait({reading})
            reading.exception()  # retrieved: nobody else will

    async def _list(self) -> None:
        self._held = []
        try:
            self._watch.listed(await self._watch.engine.call(self._watch.ask))
            for event in self._held:
                self._apply(event)
        finally:
            self._held = None
        self._watch.synchronised()

    def _arrived(self, event: dict[str, Any]) -> None:
        if self._held is None:
            self._apply(event)
        else:
            self._held.append(event)

    def _apply(self, event: dict[str, Any]) -> None:
        self._waiting.release()
        self._watch.apply(event)

    def _read(self) -> None:
        """In the thread: pass the events on to the loop, and never wait for it."""
        with contextlib.closing(self._watch.engine.new_client()) as client:
            url = f"{client.base_url}/v{client.api_version}/events"
            response = client.get(url, params={"filters": _FILTERS}, stream=True, timeout=IDLE)
            with response:
                response.raise_for_status()
                self._loop.call_soon_threadsafe(self._opened.set_result, response.raw)
                line = b""
                try:
                    for chunk in response.raw.stream():
                        *lines, line = (line + chunk).split(b"\n")
                        for complete in lines:
                            self._pass_on(json.loads(complete))
                except ReadTimeoutError:
                    return
        raise ConnectionError("the engine has ended its event stream")

    def _pass_on(self, event: dict[str, Any]) -> None:
        if not self._waiting.acquire(blocking=False):
            raise OverflowError(f"more than {MAX_WAITING} events wait")
        self._loop.call_soon_threadsafe(self._arrived, event)
