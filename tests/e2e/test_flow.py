"""Floods and stuck ends: memory stays bounded, and nobody holds up anybody else."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.e2e.conftest import Start
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"
MEGABYTE = 1 << 20


@pytest.fixture
def fresh(tmp_path: Path, engine: Engine) -> Iterator[Bastion]:
    """One of its own, whose memory nobody else has grown."""
    with serving(tmp_path, engine.url) as bastion:
        bastion.ssh(BUSY, "true")
        yield bastion


@pytest.fixture
async def connection(fresh: Bastion) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        "127.0.0.1", fresh.port, username=BUSY, client_keys=[f"{fresh.folder}/alice_key"], known_hosts=None
    ) as made:
        yield made


def settled(bastion: Bastion, container_says: list[int]) -> bool:
    """Whether the memory has stopped growing between two looks."""
    container_says.append(bastion.rss())
    return len(container_says) > 20 and container_says[-1] - container_says[-20] < MEGABYTE // 4


def test_a_client_that_stops_reading(fresh: Bastion, start: Start) -> None:
    before = fresh.rss()
    client = start(fresh.ssh_command(BUSY, "yes"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        client.stdout.read(1000)
        os.kill(client.pid, signal.SIGSTOP)
        looks: list[int] = []
        wait_until(lambda: settled(fresh, looks), "the memory settles")
        assert fresh.rss() - before < 24 * MEGABYTE
        # and nobody else is held up, in the very same container
        assert fresh.ssh(BUSY, "echo fine", timeout=10).stdout == b"fine\n"
    finally:
        os.kill(client.pid, signal.SIGCONT)
        client.kill()
        client.wait()


async def test_a_client_with_a_huge_window_that_stops_reading(fresh: Bastion) -> None:
    before = fresh.rss()
    connection = await asyncssh.connect(
        "127.0.0.1", fresh.port, username=BUSY, client_keys=[f"{fresh.folder}/alice_key"], known_hosts=None
    )
    async with connection:
        process = await connection.create_process("yes", encoding=None, window=(1 << 31) - 1)
        await process.stdout.read(1000)
        connection._transport.pause_reading()  # type: ignore[union-attr]  # the socket is not read; the window stays open
        looks: list[int] = []
        await asyncio.to_thread(wait_until, lambda: settled(fresh, looks), "the memory settles")
        assert fresh.rss() - before < 24 * MEGABYTE
        assert (await asyncio.to_thread(fresh.ssh, BUSY, "echo fine", timeout=10)).stdout == b"fine\n"
        connection.abort()


def test_a_program_that_stops_reading(fresh: Bastion, start: Start) -> None:
    before = fresh.rss()
    client = start(fresh.ssh_command(BUSY, "echo ready; sleep 1000"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert client.stdin is not None
        client.stdout.readline()
        os.set_blocking(client.stdin.fileno(), False)
        looks: list[int] = []

        def flooded() -> bool:
            try:
                os.write(client.stdin.fileno(), bytes(MEGABYTE))  # type: ignore[union-attr]
            except BlockingIOError:
                return settled(fresh, looks)
            return False

        wait_until(flooded, "the client is held up")
        assert fresh.rss() - before < 24 * MEGABYTE
        assert fresh.ssh(BUSY, "echo fine", timeout=10).stdout == b"fine\n"
    finally:
        client.kill()
        client.wait()


async def test_a_stuck_channel_does_not_hold_up_its_siblings(connection: asyncssh.SSHClientConnection) -> None:
    stuck = await connection.create_process("yes", encoding=None)
    await stuck.stdout.read(1000)  # and no more: its window fills
    for i in range(5):
        done = await asyncio.wait_for(connection.run(f"echo {i}"), 10)
        assert done.stdout == f"{i}\n"
    stuck.close()


def test_many_floods_at_once_arrive_whole(fresh: Bastion, start: Start) -> None:
    size = 20_000_000
    command = f"yes | head -c {size}"
    clients = [
        start(fresh.ssh_command(BUSY, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for client in clients:
        out, _ = client.communicate(timeout=60)
        assert out == b"y\n" * (size // 2)


def test_a_client_that_answers_no_more_is_dropped(tmp_path: Path, engine: Engine, start: Start) -> None:
    container = engine.app("silent", "main", 1)
    with serving(tmp_path, engine.url, ssh={"client_alive_interval": 0.5, "client_alive_count_max": 2}) as bastion:
        client = start(bastion.ssh_command("alice+silent.main.1", "sleep 7781"), stdin=subprocess.DEVNULL)
        wait_until(lambda: len(engine.processes(container)) > 1, "the program runs")
        os.kill(client.pid, signal.SIGSTOP)
        wait_until(lambda: len(engine.processes(container)) == 1, "its program is gone")
        assert "keepalive" in bastion.wait_for_event("connection.close")["detail"]
        os.kill(client.pid, signal.SIGCONT)
        client.wait(10)
    container.remove(force=True)
