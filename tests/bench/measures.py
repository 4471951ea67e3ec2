"""What is measured. Each function measures all its sides in turn, round by round, so that drift hits all alike."""

import asyncio
import multiprocessing
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncssh

from tests.bench.sides import Side, SshSide, settle
from tests.e2e.terminal import on_terminal

Samples = dict[str, list[float]]
MEGABYTES = 256
PROMPT = rb"[#$] $"


def interleaved(sides: Sequence[Side], rounds: int, measure: Callable[[Side], float]) -> Samples:
    for side in sides:  # a round that is not counted
        measure(side)
    samples: Samples = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            samples[side.name].append(measure(side))
    return samples


def login_to_prompt(side: Side) -> float:
    """Milliseconds from the start of the client to the shell's prompt."""
    began = time.perf_counter()
    with on_terminal(side.command(None, terminal=True)) as terminal:
        terminal.expect(PROMPT)
        taken = time.perf_counter() - began
        terminal.type(b"exit\r")
        terminal.wait()
    return taken * 1000


def echo_of_a_key(side: Side) -> float:
    """Microseconds (median) from a key to its echo by the container's terminal."""
    return statistics.median(echo_times(side))


def echo_times(side: Side, keys: int = 300) -> list[float]:
    """Microseconds of each."""
    with on_terminal(side.command("echo ready; exec cat > /dev/null", terminal=True)) as terminal:
        terminal.expect(rb"ready\r\n")
        times = []
        for i in range(keys):
            key = b"%c" % (97 + i % 26)
            began = time.perf_counter()
            terminal.type(key)
            terminal.expect(key)
            times.append((time.perf_counter() - began) * 1e6)
            if i % 60 == 59:
                terminal.type(b"\r")
                terminal.expect(rb"\r\n")
        terminal.type(b"\r\x04")
        terminal.wait()
    return times


def download(side: Side) -> float:
    """MB/s of 256 MB of a file of the container through `cat`."""
    began = time.perf_counter()
    subprocess.run(
        side.command("cat /tmp/bench", terminal=False), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return MEGABYTES / (time.perf_counter() - began)


def download_on_terminal(side: Side) -> float:
    """The same on a terminal, where the client's own input stays open."""
    began = time.perf_counter()
    with subprocess.Popen(
        side.command("cat /tmp/bench", terminal=True), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as client:
        assert client.wait() == 0
    return MEGABYTES / (time.perf_counter() - began)


def upload(source: Path, side: Side) -> float:
    """MB/s of 256 MB into `cat > /dev/null`."""
    with source.open("rb") as data:
        began = time.perf_counter()
        subprocess.run(
            side.command("cat > /dev/null", terminal=False), stdin=data, stdout=subprocess.DEVNULL, check=True
        )
        return MEGABYTES / (time.perf_counter() - began)


def cpu_per_login(side: SshSide, logins: int = 30) -> float:
    """Milliseconds of CPU that the server takes for a login with a short command."""
    before = settle(side)
    for _ in range(logins):
        subprocess.run(side.command("true", terminal=False), stdin=subprocess.DEVNULL, check=True)
    return (settle(side) - before) / logins * 1000


def memory_per_session(side: SshSide, sessions: int) -> float:
    """kB of the server and what it starts for each of `sessions` idle programs, each on a connection of its own."""
    before = side.memory()
    clients = []
    for _ in range(sessions):
        client = subprocess.Popen(
            side.command("echo ready; exec sleep 1000", terminal=True), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdout is not None
        assert client.stdout.readline().strip() == b"ready"
        clients.append(client)
    settle(side)
    taken = (side.memory() - before) / sessions / 1000
    for client in clients:
        client.kill()
        client.communicate()
    settle(side)
    return taken


def logins_a_second(side: SshSide, seconds: float = 4.0) -> float:
    """Logins with a key and without a session, by one client process with eight connections at a time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_logins, (side.port, side.user, str(side.key), seconds))


def _logins(port: int, user: str, key: str, seconds: float) -> float:
    return asyncio.run(_login_again_and_again(port, user, asyncssh.read_private_key(key), seconds))


async def _login_again_and_again(port: int, user: str, key: asyncssh.SSHKey, seconds: float) -> float:
    done = 0
    began = time.perf_counter()

    async def again() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            async with asyncssh.connect(
                "127.0.0.1",
                port,
                username=user,
                client_keys=[key],
                server_host_key_algs=["ssh-ed25519"],  # as OpenSSH's client prefers, and all that this sshd has
                known_hosts=None,
                config=None,
                agent_path=None,
            ):
                done += 1

    await asyncio.gather(*(again() for _ in range(8)))
    return done / (time.perf_counter() - began)
