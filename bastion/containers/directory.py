"""From an address to the containers that fit it, on all engines."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bastion.containers.engine import Engine
from bastion.containers.labels import own_ids
from bastion.containers.watch import Callback, Watch
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Address, Container


class Directory:
    """The containers of `engines` that have an address. `protected` are names and ids that are never entered.

    Protected always are the container that this process runs in, and what has mounted one of `folders`, one of that
    container's volumes, or an engine's socket.
    """

    def __init__(self, engines: Sequence[Engine], protected: tuple[str, ...], folders: tuple[Path, ...] = ()) -> None:
        own = _own_ids()
        self._watches = {engine.name: Watch(engine, protected, own, folders) for engine in engines}

    async def start(self) -> None:
        """Returns when each engine is in sync or has not answered once; those are tried again until `close`."""
        await asyncio.gather(*(watch.start() for watch in self._watches.values()))

    async def close(self) -> None:
        """End the event streams and their threads."""
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))

    def find(self, address: Address) -> list[Container]:
        """All containers that fit, whoever owns them, running or not; several may have the same complete address.

        Raises Unavailable ENGINE_UNAVAILABLE while an engine that may have one is out of sync, unless the address is
        complete and a container has it: one engine's outage does not close the others.
        """
        watches = [watch for watch in self._watches.values() if address.cluster in {None, watch.engine.cluster}]
        text = str(replace(address, cluster=None))
        found = [container for container in _known(watches) if _fits(text, container.address)]
        if not any(text == _complete(container.address) for container in found):
            _require(watches, all)
        return found

    def all(self) -> list[Container]:
        """All containers of the engines that are in sync; raises Unavailable where none of them is."""
        _require(self._watches.values(), any)
        return _known(self._watches.values())

    def apps(self) -> frozenset[str]:
        """The apps of all containers; raises Unavailable while one of the engines may have another."""
        _require(self._watches.values(), all)
        return frozenset(container.address.app for container in _known(self._watches.values()))

    def subscribe(self, container: Container, callback: Callback) -> Callable[[], None]:
        """Call back, on the event loop, with each new state of the container; the result unsubscribes.

        A container that is gone is STOPPED. Subscribe first and `refresh` then, and no change is missed. What changed
        while the engine was out of sight is told as soon as it is back.
        """
        return self._watches[container.engine].subscribe(container.id, callback)

    async def refresh(self, container: Container) -> Container:
        """What the engine itself says of the container now (ContainerInspect), its mounts included.

        Raises Refusal NO_SUCH_CONTAINER where it is gone or has lost its address, Unavailable where nobody answers.
        """
        watch = self._watches[container.engine]
        refreshed = await watch.engine.call(lambda client: watch.inspected(client, container.id))
        if refreshed is None:
            log = f"container {container.id} of engine {container.engine!r} has no address any more"
            raise Refusal(Reason.NO_SUCH_CONTAINER, "The container is gone.", log)
        return refreshed


def _known(watches: Iterable[Watch]) -> list[Container]:
    return [container for watch in watches if watch.in_sync for container in watch.containers.values()]


def _complete(address: Address) -> str:
    return f"{address.app}.{address.proc}.{address.instance}"


def _fits(text: str, address: Address) -> bool:
    """Is it the container's app, app.proc, app.instance or app.proc.instance?

    Compared as text: dots may belong to names, and it need not be known which of them do.
    """
    app = address.app
    if not text.startswith(app):  # most of a thousand
        return False
    return text in {app, f"{app}.{address.proc}", f"{app}.{address.instance}", _complete(address)}


def _require(watches: Iterable[Watch], quantifier: Callable[[Iterable[object]], bool]) -> None:
    watches = list(watches)
    if watches and not quantifier(watch.in_sync for watch in watches):
        names = ", ".join(watch.engine.name for watch in watches if not watch.in_sync)
        text = "The container engine does not answer; please try again later."
        raise Unavailable(Reason.ENGINE_UNAVAILABLE, text, f"out of sync: {names}")


def _own_ids() -> tuple[str, ...]:
    mountinfo = ""
    with contextlib.suppress(OSError):  # no such file but on Linux, and no container there
        mountinfo = Path("/proc/self/mountinfo").read_text(errors="replace")
    return own_ids(socket.gethostname(), mountinfo)
