"""Podman instead of Docker: stock ssh into its containers, through its socket."""

from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import NO_SHELL, Engine
from tests.servers.podman import BASH
from tests.servers.process import wait_until

BUSY, WORKER = "alice+pod.busy.1", "alice+pod.worker.1"


@pytest.fixture(scope="session")
def on_podman(podman: Engine) -> Iterator[Bastion]:
    podman.app("pod", "busy", 1)
    podman.app("pod", "worker", 1, image=BASH)
    podman.app("pod", "noshell", 1, image=NO_SHELL, command="/bin/sleep 1000000")
    podman.app("pod", "nobody", 1, labels={"bastion.user": "nobody-here"})
    podman.app("safe", "db", 1, owners="bob")
    folder = podman.folder / "bastion"
    folder.mkdir()
    with serving(folder, podman.url) as started:
        yield started


@pytest.mark.parametrize("login", [BUSY, WORKER])
def test_a_command(on_podman: Bastion, login: str) -> None:
    for status in (0, 3, 137):
        done = on_podman.ssh(login, f"cat; echo err >&2; exit {status}", stdin=b"in\0\xff\n")
        assert (done.stdout, done.stderr, done.returncode) == (b"in\0\xff\n", b"err\n", status)


def test_five_megabytes_both_ways(on_podman: Bastion) -> None:
    data = bytes(range(256)) * 20_000
    assert on_podman.ssh(BUSY, "cat", stdin=data).stdout == data


def test_ten_at_once(on_podman: Bastion, start: Start) -> None:
    clients = [start(on_podman.ssh_command(BUSY, f"sleep 0.5; echo {number}; exit {number}")) for number in range(10)]
    assert [client.communicate(timeout=60)[0] for client in clients] == [b"%d\n" % number for number in range(10)]
    assert [client.returncode for client in clients] == list(range(10))


def test_a_shell_on_a_terminal_of_the_right_size(on_podman: Bastion) -> None:
    with on_terminal(on_podman.ssh_command(WORKER), columns=123, rows=45) as terminal:
        terminal.type(b"stty size; echo $BASH_VERSION; tty\r")
        terminal.expect(rb"45 123\r\n5\.[^\r]*\r\n/dev/pts/\d+\r\n")
        terminal.type(b"until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo resized-$((40+2))\r")
        terminal.resize(77, 33)
        terminal.expect(rb"resized-42\r\n")
        terminal.type(b"stty raw -echo; echo $((40+2)); head -c 3 | od -An -tx1; stty sane\r")
        terminal.expect(rb"42\n")
        terminal.type(b"\x10\x11\x03")  # ctrl-p ctrl-q do not detach, and ctrl-c is a key
        terminal.expect(rb"10 11 03")
        terminal.expect(rb"# ")
        terminal.type(b"exit 9\r")
        assert terminal.wait() == 9


@pytest.mark.parametrize("options", [(), ("-tt",)], ids=["no terminal", "terminal"])
@pytest.mark.parametrize("login", [BUSY, WORKER])
def test_no_process_is_left_when_the_client_vanishes(
    on_podman: Bastion, podman: Engine, start: Start, login: str, options: tuple[str, ...]
) -> None:
    container = next(one for one in podman.started if one.labels["bastion.proc"] == login.split(".")[1])
    client = start(on_podman.ssh_command(login, "trap '' HUP; echo ready; sleep 1001 & sleep 1002", options=options))
    assert client.stdout is not None
    assert client.stdout.readline().strip() == b"ready"
    wait_until(lambda: len(busy_with(container)) == 2, "both run")
    client.kill()
    wait_until(lambda: not busy_with(container), "nothing is left", 30)


def busy_with(container: Container) -> list[bytes]:
    """Podman's ContainerTop is another one."""
    script = "for one in /proc/[0-9]*; do tr '\\0' ' ' < $one/cmdline; echo; done"
    lines = container.exec_run(["sh", "-c", script], stderr=False).output.splitlines()
    return [line for line in lines if line.startswith((b"sleep 1001", b"sleep 1002"))]


def test_what_can_not_be_started_says_so_and_what_ran_does_not(on_podman: Bastion, podman: Engine) -> None:
    no_shell = on_podman.ssh("alice+pod.noshell.1", "true")
    assert (no_shell.returncode, no_shell.stderr) == (127, b"The container has no shell (/bin/sh).\n")
    nobody = on_podman.ssh("alice+pod.nobody.1", "true")
    assert nobody.returncode not in (0, 127)
    missing = on_podman.ssh(BUSY, "no-such-command")
    assert missing.returncode == 127
    assert b"not found" in missing.stderr


def test_a_paused_and_a_stopped_container(on_podman: Bastion, podman: Engine, start: Start) -> None:
    container = podman.app("pod", "ends", 1)
    login = "alice+pod.ends.1"
    wait_until(lambda: on_podman.ssh(login, "true").returncode == 0, "the directory knows it")
    client = start(on_podman.ssh_command(login, "echo ready; exec sleep 1001"), stderr=-1)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    container.pause()
    refused = on_podman.ssh(login, "true")
    assert refused.returncode == 1
    assert refused.stderr.endswith(b" is paused; try again when it runs.\n")
    container.unpause()
    container.kill()
    _, errors = client.communicate(timeout=30)
    assert (client.returncode, errors) == (255, b"The container pod.ends.1 stopped.\n")


def test_what_is_not_alices_and_a_new_one(on_podman: Bastion, podman: Engine) -> None:
    bobs, nobodys = on_podman.ssh("alice+safe.db.1", "true"), on_podman.ssh("alice+safe.nowhere.1", "true")
    assert bobs.stderr == nobodys.stderr.replace(b"nowhere", b"db")
    podman.app("fresh", "one", 1)
    wait_until(lambda: on_podman.ssh("alice+fresh.one.1", "true").returncode == 0, "a new one is found by its event")
