import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container as DockerContainer

from bastion import config
from bastion.access.address import parse_address
from bastion.containers import watch
from bastion.containers.directory import Directory
from bastion.containers.engine import Engine
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Address, Container, ContainerState
from demo.images import busybox_tar, import_tree
from tests.servers.engine import BUSYBOX, dockerd
from tests.servers.engine import Engine as DockerEngine

RUNNING, PAUSED, STOPPED = ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPED


async def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def directory_of(
    *engines: Engine, protected: tuple[str, ...] = (), folders: tuple[Path, ...] = ()
) -> AsyncIterator[Directory]:
    """A started directory; at its end, nothing of it is left."""
    directory = Directory(engines, protected, folders)
    try:
        await directory.start()
        yield directory
    finally:
        await directory.close()
        await asyncio.gather(*(engine.close() for engine in engines))
    left = tuple(f"events-{engine.name}_" for engine in engines)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(left)] == []


@pytest.fixture
async def directory(engine: DockerEngine) -> AsyncIterator[Directory]:
    async with directory_of(Engine(config.Engine(url=engine.url))) as started:
        yield started


def found(directory: Directory, address: str) -> list[str]:
    return sorted(container.id for container in directory.find(parse_address(address)))


def the(directory: Directory, address: str) -> Container:
    (container,) = directory.find(parse_address(address))
    return container


def unavailable(directory: Directory, address: str) -> bool:
    try:
        directory.find(parse_address(address))
    except Unavailable as refusal:
        return refusal.reason is Reason.ENGINE_UNAVAILABLE
    return False


async def test_what_was_there_is_found_by_all_that_fits(engine: DockerEngine) -> None:
    first, second = engine.app("fits", "worker", 1), engine.app("fits", "worker", 2)
    dotted = engine.app("fits.worker", "main", 1)
    async with directory_of(Engine(config.Engine(url=engine.url))) as directory:
        assert found(directory, "fits") == sorted([first.id, second.id])
        assert found(directory, "fits.worker") == sorted([first.id, second.id, dotted.id])
        assert found(directory, "fits.worker.1") == sorted([first.id, dotted.id])
        assert found(directory, "fits.worker.2") == [second.id]
        assert found(directory, "fits.2") == [second.id]
        assert found(directory, "fits.worker.main.1") == [dotted.id]
        assert found(directory, "fits.worker.3") == []
        assert found(directory, "fit") == []
        assert found(directory, "nowhere/fits.worker.2") == []
        assert {first.id, second.id, dotted.id} <= {container.id for container in directory.all()}


async def test_a_container_is_known_with_all_that_is_asked_of_it(directory: Directory, engine: DockerEngine) -> None:
    made = engine.app("known", labels={"x": "y"})
    await until(lambda: found(directory, "known") == [made.id], "the new container is known")
    await until(lambda: the(directory, "known").state is RUNNING, "it runs")
    container = the(directory, "known")
    assert container.engine == "local"
    assert container.name == made.name
    assert container.image == BUSYBOX
    assert container.labels["bastion.owners"] == "alice"
    assert container.labels["x"] == "y"
    assert container.address == Address("known", "worker", 1)
    assert not container.protected
    assert await directory.refresh(container) == container


async def test_containers_with_the_same_address_are_all_found(directory: Directory, engine: DockerEngine) -> None:
    ids = sorted(engine.app("twin").id for _ in range(2))
    await until(lambda: found(directory, "twin.worker.1") == ids, "both are known")


async def test_a_subscriber_is_told_of_each_change_within_a_second(directory: Directory, engine: DockerEngine) -> None:
    made = engine.app("told")
    await until(lambda: found(directory, "told") and the(directory, "told").state is RUNNING, "it runs")
    told: list[ContainerState] = []
    loop_thread = threading.get_ident()

    def note(state: ContainerState) -> None:
        assert threading.get_ident() == loop_thread
        told.append(state)

    unsubscribe = directory.subscribe(the(directory, "told"), note)
    for change, state in (
        (made.pause, PAUSED),
        (made.unpause, RUNNING),
        (made.kill, STOPPED),
        (made.start, RUNNING),
        (lambda: made.remove(force=True), STOPPED),
    ):
        told.clear()
        change()
        await until(lambda: told, f"told of {change}", seconds=1)
        assert told == [state]
        assert [container.state for container in directory.find(Address("told"))] in ([state], [])
    await until(lambda: found(directory, "told") == [], "the removed container is forgotten")
    unsubscribe()
    unsubscribe()


async def test_who_unsubscribed_is_told_nothing_and_who_fails_hinders_nobody(
    directory: Directory, engine: DockerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    made = engine.app("unsubscribed")
    await until(lambda: found(directory, "unsubscribed") and the(directory, "unsubscribed").state is RUNNING, "it runs")
    container = the(directory, "unsubscribed")
    first: list[ContainerState] = []
    second: list[ContainerState] = []

    def failing(state: ContainerState) -> None:
        raise RuntimeError(state)

    unsubscribe = directory.subscribe(container, first.append)
    directory.subscribe(container, failing)
    directory.subscribe(container, second.append)
    unsubscribe()
    made.pause()
    await until(lambda: second == [PAUSED], "the other subscriber is told")
    assert first == []
    assert "subscriber" in caplog.text
    made.unpause()


async def test_a_stopped_container_is_known_as_not_running(directory: Directory, engine: DockerEngine) -> None:
    made = engine.app("stopped")
    made.kill()
    await until(lambda: found(directory, "stopped") and the(directory, "stopped").state is STOPPED, "it is stopped")
    async with directory_of(Engine(config.Engine(name="another", url=engine.url))) as another:
        assert the(another, "stopped").state is STOPPED
    made.start()
    await until(lambda: the(directory, "stopped").state is RUNNING, "it runs again")


async def test_a_container_that_is_made_anew_under_the_same_name(directory: Directory, engine: DockerEngine) -> None:
    old = engine.app("anew", name="anew")
    await until(lambda: found(directory, "anew") == [old.id], "the first is known")
    old.remove(force=True)
    new = engine.app("other", name="anew")
    await until(lambda: found(directory, "other") == [new.id], "the second is known")
    assert found(directory, "anew") == []


async def test_a_new_name_counts_where_the_address_hangs_on_it(directory: Directory, engine: DockerEngine) -> None:
    prefix = "cc.bdp.lain.deployd."
    labels = {f"{prefix}pg_name": "moved.web.web", f"{prefix}pg_namespace": "moved", f"{prefix}instance_no": "1"}
    made = engine.run(name="moved.web.web.v1-i1-d0", labels=labels)
    await until(lambda: found(directory, "moved.web.1") and the(directory, "moved").state is RUNNING, "it is known")
    told: list[ContainerState] = []
    directory.subscribe(the(directory, "moved"), told.append)
    container = the(directory, "moved")
    made.rename("evil.web.web.v1-i1-d0")
    await until(lambda: found(directory, "moved") == [], "its labels contradict its name")
    with pytest.raises(Refusal) as refused:
        await directory.refresh(container)
    assert refused.value.reason is Reason.NO_SUCH_CONTAINER
    made.pause()
    await until(lambda: told == [PAUSED], "a session that is in it is told all the same")
    made.unpause()


class Interrupted(Engine):
    """An engine where something happens just before and just after the containers are listed."""

    before: Callable[[], object]
    after: Callable[[], object]

    async def call(self, function: Callable[[docker.APIClient], Any], *, timeout: float | None = None) -> Any:
        self.before()
        listing = await super().call(function, timeout=timeout)
        # In a thread, so that the loop gets the events of it while it still waits for the listing.
        await asyncio.to_thread(self.after)
        return listing


async def test_what_happens_while_the_containers_are_listed_is_not_lost(engine: DockerEngine) -> None:
    stopping, removed, paused = (engine.app("meanwhile", proc) for proc in ("stopping", "removed", "paused"))
    events = engine.client.events(decode=True, filters={"type": "container"})
    made = []

    def before() -> None:
        made.append(engine.app("meanwhile", "before", labels={"name": "a label"}))  # no event tells such a label
        stopping.kill()

    def after() -> None:
        made.append(engine.app("meanwhile", "after"))
        removed.remove(force=True)
        paused.pause()
        while next(events)["Action"] != "pause":
            pass  # when this stream has it, the other has it, too

    interrupted = Interrupted(config.Engine(url=engine.url))
    interrupted.before, interrupted.after = before, after
    async with directory_of(interrupted) as directory:
        await until(lambda: the(directory, "meanwhile.paused").state is PAUSED, "the pause is known")
        states = {container.address.proc: container.state for container in directory.find(Address("meanwhile"))}
        assert states == {"stopping": STOPPED, "paused": PAUSED, "before": RUNNING, "after": RUNNING}
        assert the(directory, "meanwhile.before").labels["name"] == "a label"
    paused.unpause()
    events.close()


async def test_an_engine_is_listed_once_however_many_containers_it_has(engine: DockerEngine) -> None:
    class Counted(Engine):
        calls = 0

        async def call(self, function: Callable[[docker.APIClient], Any], *, timeout: float | None = None) -> Any:
            self.calls += 1
            return await super().call(function, timeout=timeout)

    made = [engine.app("many", instance=number) for number in range(20)]
    counted = Counted(config.Engine(url=engine.url))
    async with directory_of(counted) as directory:
        assert len(directory.find(Address("many"))) == 20
        made[0].remove(force=True)
        await until(lambda: len(directory.find(Address("many"))) == 19, "one is gone")
        assert counted.calls == 1


async def test_a_flood_of_events(directory: Directory, engine: DockerEngine) -> None:
    made = [engine.app("flood", instance=number) for number in range(4)]
    await until(lambda: [one.state for one in directory.find(Address("flood"))] == [RUNNING] * 4, "all are known")
    told: list[ContainerState] = []
    directory.subscribe(the(directory, "flood.0"), told.append)

    def rename_often(container: DockerContainer) -> None:
        for number in range(100):
            container.rename(f"flood-{container.short_id}-{number}")
        container.pause()

    await asyncio.gather(*(asyncio.to_thread(rename_often, container) for container in made))
    await until(lambda: {one.state for one in directory.find(Address("flood"))} == {PAUSED}, "all are paused")
    names = {f"flood-{container.short_id}-99" for container in made}
    assert {one.name for one in directory.find(Address("flood"))} == names
    assert told == [PAUSED]
    for container in made:
        container.unpause()


async def test_more_events_than_may_wait_are_made_up_for_by_a_new_listing(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "MAX_WAITING", 5)
    made = engine.app("overflow")
    async with directory_of(Engine(config.Engine(url=engine.url))) as directory:
        told: list[ContainerState] = []
        directory.subscribe(the(directory, "overflow"), told.append)
        for number in range(8):  # one after the other, they do not wait
            made.rename(f"overflow-{number}")
            await until(lambda name=f"overflow-{number}": the(directory, "overflow").name == name, "renamed")
        assert "OverflowError" not in caplog.text
        for number in range(20):  # the loop gets no time meanwhile
            made.rename(f"overflow-{number}")
        made.pause()
        await until(lambda: "OverflowError" in caplog.text, "the stream is given up")
        await until(lambda: not unavailable(directory, "overflow"), "in sync again")
        assert the(directory, "overflow").name == "overflow-19"
        assert the(directory, "overflow").state is PAUSED
        assert told == [PAUSED]
    made.unpause()


async def test_an_event_that_the_engine_dropped_is_made_up_for_by_the_next_listing(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RELIST", 0.1)
    monkeypatch.setattr(watch.Watch, "apply", lambda self, event: None)
    async with directory_of(Engine(config.Engine(url=engine.url))) as directory:
        made = engine.app("dropped")
        await until(lambda: found(directory, "dropped") == [made.id], "it is known")
        await until(lambda: the(directory, "dropped").state is RUNNING, "it runs")


async def test_an_idle_stream_is_opened_anew_and_nobody_notices(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "IDLE", 0.1)
    opened = 0

    class Counted(Engine):
        def new_client(self) -> docker.APIClient:
            nonlocal opened
            opened += 1
            return super().new_client()

    made = engine.app("idle")
    async with directory_of(Counted(config.Engine(url=engine.url))) as directory:
        told: list[ContainerState] = []
        directory.subscribe(the(directory, "idle"), told.append)
        begin = opened
        await until(lambda: opened > begin + 3 or unavailable(directory, "idle"), "opened anew")
        assert not unavailable(directory, "idle")
        made.pause()
        await until(lambda: told == [PAUSED], "told of the pause")
    made.unpause()


async def test_the_bastions_own_containers_are_marked(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, by_id, by_label, itself, _ = (
        engine.app("own", proc, labels={"bastion.protected": "true"} if proc == "label" else {})
        for proc in ("name", "id", "label", "itself", "other")
    )
    monkeypatch.setattr(socket, "gethostname", lambda: itself.id[:12])
    protected = (by_name.name, by_id.id[:12])
    async with directory_of(Engine(config.Engine(url=engine.url)), protected=protected) as directory:
        marked = {container.id for container in directory.find(Address("own")) if container.protected}
        assert marked == {by_name.id, by_id.id, by_label.id, itself.id}
        by_name.rename("own-renamed")
        await until(lambda: the(directory, "own.name").name == "own-renamed", "renamed")
        assert (await directory.refresh(the(directory, "own.itself"))).protected
        assert not (await directory.refresh(the(directory, "own.other"))).protected


async def test_what_has_the_trail_mounted_is_marked(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    (trail / "recordings").mkdir(parents=True)
    (tmp_path / "other").mkdir()

    def mounting(proc: str, source: str) -> str:
        return str(engine.app("mounts", proc, volumes=[f"{source}:/mnt:ro"]).id)

    itself = engine.app("mounts", "itself", volumes=["bastion-keys:/keys"])
    monkeypatch.setattr(socket, "gethostname", lambda: itself.id[:12])
    expected = {itself.id, mounting("volume", "bastion-keys")}
    mounting("other-volume", "other-keys")
    mounting("other", f"{tmp_path}/other")
    async with directory_of(Engine(config.Engine(url=engine.url)), folders=(trail,)) as directory:
        marked = {container.id for container in directory.find(Address("mounts")) if container.protected}
        assert marked == expected  # the trail is in a container here
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    expected = {
        mounting("inside", f"{trail}/recordings"),
        mounting("holds", str(tmp_path)),
        mounting("socket", engine.url.removeprefix("unix://")),
    }
    async with directory_of(Engine(config.Engine(url=engine.url)), folders=(trail,)) as directory:
        marked = {container.id for container in directory.find(Address("mounts")) if container.protected}
        assert marked == expected
        engine.client.containers.get(the(directory, "mounts.inside").id).rename("mounts-renamed")
        await until(lambda: the(directory, "mounts.inside").name == "mounts-renamed", "renamed")
        assert the(directory, "mounts.inside").protected
        new = mounting("new", str(trail))  # its event does not tell of mounts
        await until(lambda: new in found(directory, "mounts.new"), "known")
        assert (await directory.refresh(the(directory, "mounts.new"))).protected
        assert not (await directory.refresh(the(directory, "mounts.other"))).protected


async def test_refresh_asks_the_engine_itself(directory: Directory, engine: DockerEngine) -> None:
    made = engine.app("fresh")
    await until(lambda: found(directory, "fresh") and the(directory, "fresh").state is RUNNING, "it runs")
    known = the(directory, "fresh")
    made.pause()
    assert (await directory.refresh(known)).state is PAUSED
    made.unpause()
    assert (await directory.refresh(known)).state is RUNNING
    made.kill()
    assert (await directory.refresh(known)).state is STOPPED
    made.remove()
    with pytest.raises(Refusal) as refused:
        await directory.refresh(known)
    assert refused.value.reason is Reason.NO_SUCH_CONTAINER


async def test_one_engine_that_is_down_closes_only_what_could_be_on_it(engine: DockerEngine, tmp_path: Path) -> None:
    made = engine.app("half")
    live = Engine(config.Engine(name="live", cluster="eu", url=engine.url))
    dead = Engine(config.Engine(name="dead", cluster="us", url=f"unix://{tmp_path}/none.sock"))
    async with directory_of(live, dead) as directory:
        assert found(directory, "half.worker.1") == [made.id]  # complete, and there
        assert found(directory, "eu/half") == [made.id]
        assert the(directory, "eu/half").address == Address("half", "worker", 1, "eu")
        assert unavailable(directory, "half")  # might be two
        assert unavailable(directory, "half.worker.2")  # might be there
        assert unavailable(directory, "us/half.worker.1")
        assert made.id in {container.id for container in directory.all()}
    async with directory_of(Engine(config.Engine(name="dead", url=f"unix://{tmp_path}/none.sock"))) as directory:
        with pytest.raises(Unavailable, match="out of sync: dead"):
            directory.all()


@pytest.fixture
def private(servers_folder: Path) -> Iterator[Path]:
    """The folder of an engine that a test may kill; what a killed engine leaves behind is put away."""
    folder = servers_folder / "private"
    folder.mkdir(exist_ok=True)
    yield folder
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if f"{folder}/".encode() in (process / "cmdline").read_bytes():  # a shim; its container has no such name
                children = (process / "task" / process.name / "children").read_text().split()
                for pid in (*children, process.name):
                    os.kill(int(pid), signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", mount], check=True)


async def test_an_engine_is_killed_and_comes_back(private: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"unix://{private}/docker.sock"
    async with directory_of(Engine(config.Engine(url=url))) as directory:
        assert unavailable(directory, "back")  # down at the start
        told: list[ContainerState] = []
        with dockerd(private) as process, contextlib.closing(docker.DockerClient(base_url=url)) as client:
            await until(lambda: not unavailable(directory, "back"), "in sync")
            import_tree(client, busybox_tar(), BUSYBOX)
            for number in range(2):
                client.containers.run(
                    BUSYBOX,
                    "sleep 1000000",
                    detach=True,
                    network_mode="none",
                    labels={"bastion.app": "back", "bastion.instance": str(number)},
                )
            await until(lambda: [c.state for c in directory.find(Address("back"))] == [RUNNING] * 2, "both run")
            container = the(directory, "back.0")
            directory.subscribe(container, told.append)
            process.send_signal(signal.SIGKILL)
            await until(lambda: unavailable(directory, "back.main.0"), "the loss is noticed")
            with pytest.raises(Unavailable):
                await directory.refresh(container)
            assert told == []
            process.wait(5)
        # Where nobody reaps orphans (in a container), the next dockerd would take the dead containerd for running.
        (private / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        with dockerd(private):
            await until(lambda: told == [STOPPED], "told of what died with the engine")
            client = docker.DockerClient(base_url=url)
            assert not unavailable(directory, "back")
            assert the(directory, "back.main.0").state is STOPPED
            client.containers.get(container.id).start()
            await until(lambda: told == [STOPPED, RUNNING], "events come in again")
            client.containers.get(container.id).remove(force=True)
            client.containers.get(the(directory, "back.main.1").id).remove(force=True)
            client.close()
    assert caplog.text.count("is out of sight") >= 2


async def test_an_engine_that_hangs_is_noticed(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "IDLE", 0.5)
    url = f"unix://{private}/docker.sock"
    with dockerd(private) as process:
        async with directory_of(Engine(config.Engine(url=url, timeout=1))) as directory:
            await until(lambda: not unavailable(directory, "hung"), "in sync")
            process.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: unavailable(directory, "hung"), "the silence is noticed")
                process.send_signal(signal.SIGCONT)
                await until(lambda: not unavailable(directory, "hung"), "in sync again")
                process.send_signal(signal.SIGSTOP)
                await until(lambda: unavailable(directory, "hung"), "the silence is noticed again")
                await directory.close()  # ends by its own limits, though the engine hangs
            finally:
                process.send_signal(signal.SIGCONT)


async def test_closing_at_any_moment_leaves_nothing(engine: DockerEngine) -> None:
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir()))
    for turns in range(1, 13):
        started = Engine(config.Engine(url=engine.url))
        directory = Directory([started], ())
        starting = asyncio.create_task(directory.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await directory.close()
        starting.cancel()
        await asyncio.wait({starting})
        await started.close()
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("events-")] == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
