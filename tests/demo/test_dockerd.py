"""The demo's own engine: it starts anywhere, and nothing of it is left, not even after everything was killed."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from demo import processes
from demo.dockerd import LEFTOVERS, Dockerd
from demo.images import busybox_tar, import_tree
from demo.terminal import Problem
from tests.servers.process import wait_until


@pytest.fixture
def own() -> Iterator[Dockerd]:
    """In a folder with a blank, an umlaut, and a path that is too long for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "ä b" + "c" * 120, "run")
        run.mkdir(parents=True)
        engine = Dockerd(run)
        yield engine
        engine.stop()


def nothing_is_left(own: Dockerd) -> bool:
    mounts = Path("/proc/self/mountinfo").read_text()
    cgroups = [*Path("/sys/fs/cgroup").glob(own.mark), *Path("/sys/fs/cgroup").glob(f"*/{own.mark}")]
    assert not cgroups
    assert not processes.find(own.mark)
    assert own.mark not in mounts
    assert own.run.parent.name.replace(" ", "\\040") not in mounts
    assert not own.data.exists()
    assert not own.exists()
    return True


def start_container(own: Dockerd) -> int:
    """Returns the pid of its first process."""
    client = docker.DockerClient(base_url=own.url)
    import_tree(client, busybox_tar(), "test:1")
    container = client.containers.run("test:1", "sleep 1000000", detach=True, network_mode="none")
    container.reload()
    client.close()
    return int(container.attrs["State"]["Pid"])


@pytest.mark.alone  # another engine on the machine has the same folders
def test_starts_and_stops_with_a_container_running(own: Dockerd) -> None:
    before = [path.exists() for path in LEFTOVERS]
    own.start(os.getegid())
    pid = start_container(own)
    assert pid in processes.find(own.mark)
    own.stop()
    assert nothing_is_left(own)
    assert [path.exists() for path in LEFTOVERS] == before


def test_nothing_is_left_after_the_engine_was_killed(own: Dockerd) -> None:
    own.start(os.getegid())
    pid = start_container(own)
    for name in ("dockerd", "containerd", "containerd-shim"):
        assert processes.end(own.mark, signal.SIGKILL, 10, name=name)
    assert pid in processes.find(own.mark), "the container outlives its engine"
    own.stop()
    assert nothing_is_left(own)
    wait_until(lambda: not Path("/proc", str(pid)).exists(), "the container's process is gone")


def test_an_engine_that_does_not_start_says_why(own: Dockerd) -> None:
    own.data.mkdir()
    (own.data / "image").write_text("where dockerd wants a folder")
    with pytest.raises(Problem, match=r"Its last words:\n(.*\n)*.*image.*: not a directory"):
        own.start(os.getegid())
    own.stop()
    assert nothing_is_left(own)


def test_another_folder_is_another_engine() -> None:
    assert Dockerd(Path("/a/demo/run")).mark != Dockerd(Path("/b/demo/run")).mark
    assert len(str(Dockerd(Path("/x" * 2000)).exec_root / "containerd/containerd-debug.sock")) < 107
