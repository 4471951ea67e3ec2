"""`make demo` in a copy of the tree: what a stranger does first, and what is left of it afterwards (nothing)."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from demo import processes
from demo.containers import LABEL
from demo.dockerd import Dockerd
from demo.engine import DOCKER, PODMAN
from tests.recordings import content, recordings
from tests.servers.process import accepts, free_port, wait_until

ROOT = Path(__file__).parents[2]
READY = "Ctrl-C, or make demo-down"
SSH = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
SSH += ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"]


@dataclass
class Demo:
    """A copy of the tree, and the `make demo` that runs in it."""

    tree: Path
    engine: str | None  # DOCKER_HOST; None: the demo is to start its own
    port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def make(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("DOCKER_HOST", "XDG_RUNTIME_DIR")}
        environment |= {"BASTION_PORT": str(self.port)}
        if self.engine:
            environment["DOCKER_HOST"] = self.engine
        process = subprocess.Popen(
            [*self._without_the_machines_engine(), "make", "--no-print-directory", *arguments],
            cwd=self.tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def up(self) -> tuple[subprocess.Popen[str], str]:
        """Returns when it is ready, with all that it said."""
        process = self.make("demo")
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith(READY):
                return process, said
        raise AssertionError(f"make demo ended:\n{said}")

    def down(self) -> str:
        process = self.make("demo-down")
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said

    def ssh(self, destination: str, password: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sshpass", "-p", password, "ssh", *SSH, "-p", str(self.port), f"{destination}@127.0.0.1", *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def run(self) -> Path:
        return self.tree / "demo/run"

    def nothing_is_left(self) -> bool:
        # All that it starts has the copy's path in its arguments, or the mark in its environment.
        assert not [pid for pid in _pids() if str(self.tree).encode() in _read(pid, "cmdline")]
        for mark in (processes.mark_of(self.run), f"{processes.mark_of(self.run)}-server"):
            assert processes.find(mark) == []
        assert str(self.tree) not in Path("/proc/self/mountinfo").read_text()
        assert not Dockerd(self.run).exists()
        assert not self.run.exists()
        assert not accepts(self.port)
        if self.engine:
            client = docker.DockerClient(base_url=self.engine)
            assert client.containers.list(all=True, filters={"label": LABEL}) == []
            assert not client.images.list(processes.mark_of(self.run))
            client.close()
        changed = subprocess.run(
            ["git", "status", "--short"], cwd=self.tree, capture_output=True, text=True, check=True
        )
        assert changed.stdout == ""
        return True

    def _without_the_machines_engine(self) -> list[str]:
        """Where the machine has an engine, the demo that is to start its own must not see it."""
        hide = [path for path in (DOCKER, PODMAN) if path.exists()]
        if self.engine or not hide:
            return []
        script = "".join(f"mount --bind /dev/null {path} && " for path in hide) + 'exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), name).read_bytes()
    return b""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree, in git, with an environment."""
    tree = tmp_path_factory.mktemp("demo") / "tree"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"]):
        subprocess.run(["git", *command], cwd=tree, check=True)
    _link_environment(tree)
    return tree


@pytest.fixture(params=["an engine found", "an engine of its own"])
def demo(request: pytest.FixtureRequest, tree: Path) -> Iterator[Demo]:
    found = {"an engine found": "engine", "Podman found": "podman"}.get(request.param)
    made = Demo(tree, request.getfixturevalue(found).url if found else None, free_port())
    yield made
    with contextlib.suppress(AssertionError):
        made.down()
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _link_environment(tree: Path) -> None:
    """A `.venv` in `tree` that has this one's packages and the tree's own code, so that pip has nothing to do."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree / ".venv"], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(tree / ".venv")})
    Path(packages, "tree.pth").write_text(f"{tree}\n{sysconfig.get_path('purelib')}\n")
    script = tree / ".venv/bin/bastion"
    script.write_text(f"#!{tree}/.venv/bin/python\nfrom bastion.cli import main\n\nmain()\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tree / ".venv/installed-demo").touch()


def password_of(said: str, user: str) -> str:
    pattern = r"password: (\S+)\n" if user == "alice" else r"vault\.db\.1; password: (\S+)\n"
    found = re.search(pattern, said)
    assert found, said
    return found[1]


@pytest.mark.parametrize("demo", ["an engine found", "an engine of its own", "Podman found"], indirect=True)
def test_a_stranger_enters_is_recorded_and_ctrl_c_leaves_nothing(demo: Demo) -> None:
    process, said = demo.up()
    assert f"ssh -p {demo.port} alice+web.worker.1@127.0.0.1" in said
    alice, bob = password_of(said, "alice"), password_of(said, "bob")

    done = demo.ssh("alice+web.worker.1", alice, "whoami; hostname; exit 7")
    assert (done.stdout, done.returncode) == ("root\nweb-worker-1\n", 7), done.stderr
    assert demo.ssh("alice+shop.front.1", alice, "hostname").stdout == "shop-front-1\n"
    assert demo.ssh("bob+vault.db.1", bob, "hostname").stdout == "vault-db-1\n"
    refused = demo.ssh("bob+web.worker.1", bob, "echo entered")
    assert refused.returncode != 0
    assert "entered" not in refused.stdout
    assert demo.ssh("alice+web.worker.1", bob, "echo entered").returncode != 0
    assert [file for file in recordings(demo.run / "recordings") if b"root" in content(file)]
    assert "alice" in (demo.run / "audit.jsonl").read_text()

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert demo.nothing_is_left()
    assert {file.name for file in (demo.tree / "keys").iterdir()} >= {"ssh_host_ed25519_key", "demo-passwords.yaml"}


def slowness() -> float:
    """How many seconds a second of this machine's processors takes at the moment; 1 where nothing else runs."""
    began, before = time.monotonic(), os.times()
    subprocess.run([sys.executable, "-c", "import bastion.app"], cwd=ROOT, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return max(1.0, (time.monotonic() - began) / used)


@pytest.mark.alone
def test_a_second_start_is_quick_and_has_the_same_passwords(demo: Demo) -> None:
    process, first = demo.up()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    factor, began = slowness(), time.monotonic()
    process, second = demo.up()
    seconds = time.monotonic() - began
    assert seconds / ((factor + slowness()) / 2) < 10, second
    assert [line for line in first.splitlines() if "..." not in line] == [
        line for line in second.splitlines() if "..." not in line
    ]
    again = demo.make("demo")
    said, _ = again.communicate(timeout=30)
    assert again.returncode != 0
    assert "The demo is already running; make demo-down ends it." in said
    assert accepts(demo.port), "and it goes on running"


def kill_make(process: subprocess.Popen[str], _: Demo) -> None:
    process.kill()


def kill_make_and_demo(process: subprocess.Popen[str], demo: Demo) -> None:
    process.kill()
    os.kill(int((demo.run / "pid").read_text()), signal.SIGKILL)


def kill_all(process: subprocess.Popen[str], demo: Demo) -> None:
    """As a power cut, but for the containers."""
    kill_make_and_demo(process, demo)
    for name in ("dockerd", "containerd", "containerd-shim"):
        assert processes.end(processes.mark_of(demo.run), signal.SIGKILL, 10, name=name)
    assert processes.end(f"{processes.mark_of(demo.run)}-server", signal.SIGKILL, 10)


@pytest.mark.parametrize(
    ("demo", "kill"),
    [
        ("an engine found", kill_make),
        ("an engine found", kill_make_and_demo),
        ("an engine of its own", kill_make),
        ("an engine of its own", kill_all),
    ],
    indirect=["demo"],
)
def test_demo_down_cleans_up_after_kill_9(demo: Demo, kill: Callable[[subprocess.Popen[str], Demo], None]) -> None:
    process, _ = demo.up()
    kill(process, demo)
    demo.down()
    assert demo.nothing_is_left()
    assert demo.down() == ""


@pytest.mark.parametrize("demo", ["an engine of its own"], indirect=True)
def test_demo_up_cleans_up_after_kill_9(demo: Demo) -> None:
    process, _ = demo.up()
    kill_all(process, demo)
    process, said = demo.up()
    assert demo.ssh("alice+web.worker.1", password_of(said, "alice"), "exit 3").returncode == 3
    demo.down()
    process.communicate(timeout=30)
    assert demo.nothing_is_left()


@pytest.mark.parametrize("demo", ["an engine found"], indirect=True)
def test_a_bastion_that_ends_by_itself_ends_the_demo(demo: Demo) -> None:
    process, _ = demo.up()
    assert processes.end(f"{processes.mark_of(demo.run)}-server", signal.SIGKILL, 10)
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "The bastion ended by itself, with status -9" in said
    assert demo.nothing_is_left()


@pytest.mark.parametrize("demo", ["an engine of its own"], indirect=True)
def test_ctrl_c_while_it_starts_leaves_nothing(demo: Demo) -> None:
    process = demo.make("demo")
    own = Dockerd(demo.run)
    wait_until(lambda: own.exists() or process.poll() is not None, "it is starting its engine")
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert demo.nothing_is_left()


@pytest.mark.parametrize("demo", ["an engine found"], indirect=True)
def test_a_port_that_is_taken_is_a_sentence(demo: Demo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", demo.port))
        taken.listen()
        process = demo.make("demo")
        said, _ = process.communicate(timeout=30)
    assert f"Port {demo.port} on 127.0.0.1 can not be had (Address already in use)" in said
    assert "Traceback" not in said
    assert process.returncode != 0
    assert demo.nothing_is_left()
