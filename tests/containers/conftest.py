"""Execs in containers of the real engine."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from docker.models.containers import Container as DockerContainer

from bastion import config
from bastion.containers.attach import Attach
from bastion.containers.engine import Engine
from bastion.containers.exec import Exec, ExecSpec, start
from bastion.containers.shell import command_argv
from bastion.model import Address, Chunk, Container, ContainerState, Stream, Terminal
from tests.servers.engine import BUSYBOX
from tests.servers.engine import Engine as DockerEngine

TERMINAL = Terminal("xterm", 123, 45)
_numbers = itertools.count(1)


def model_of(container: DockerContainer) -> Container:
    labels = container.labels
    address = Address("app", "proc", 1)
    return Container("local", container.id, container.name, "image", labels, ContainerState.RUNNING, address)


def joined(chunks: list[Chunk], stream: Stream = Stream.OUTPUT) -> bytes:
    return b"".join(data for of, data in chunks if of is stream)


async def until(condition: Callable[[], Awaitable[object]], what: str, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
            print("waiting until", what)


async def drained(attached: Attach) -> None:
    """Return when it is not full."""
    room = asyncio.Event()
    attached.on_drained = room.set
    while attached.full:
        room.clear()
        await asyncio.wait_for(room.wait(), 30)


async def read_all(program: Exec) -> list[Chunk]:
    chunks: list[Chunk] = []
    while got := await program.read():
        chunks += got
    return chunks


async def read_until(program: Exec, words: bytes, seconds: float = 20) -> bytes:
    """The output up to `words` and what came with them."""
    output = b""
    async with asyncio.timeout(seconds):
        while words not in output:
            chunks = await program.read()
            assert chunks, f"ended before {words!r}: {output!r}"
            output += joined(chunks)
    return output


@dataclass
class Programs:
    """Starts programs, and closes their execs at the end of the test."""

    engine: Engine
    docker: DockerEngine
    running: list[Exec] = field(default_factory=list)

    async def start(
        self,
        container: DockerContainer,
        command: str | tuple[str, ...],
        *,
        terminal: Terminal | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        workdir: str | None = None,
    ) -> Exec:
        argv = command_argv(command) if isinstance(command, str) else command
        session_id = f"{os.getpid()}-{next(_numbers)}"
        spec = ExecSpec(argv, env or {}, terminal, user, workdir, session_id)
        program = await start(self.engine, model_of(container), spec)
        self.running.append(program)
        return program

    async def run(
        self, container: DockerContainer, command: str | tuple[str, ...], data: bytes = b"", **kwargs: object
    ) -> tuple[int, bytes, bytes]:
        """Exit status, stdout and stderr."""
        program = await self.start(container, command, **kwargs)  # type: ignore[arg-type]

        async def feed() -> None:
            for begin in range(0, len(data), 1 << 16):
                program.write(data[begin : begin + (1 << 16)])
                await drained(program._attach)
            program.write_eof()

        chunks, _ = await asyncio.gather(read_all(program), feed())
        return await program.wait(), joined(chunks), joined(chunks, Stream.ERROR)


@contextlib.asynccontextmanager
async def programs_of(engine: DockerEngine) -> AsyncIterator[Programs]:
    own = Engine(config.Engine(url=engine.url, timeout=30))
    programs = Programs(own, engine)
    yield programs
    for program in programs.running:
        await program.close()
    await own.close()


@pytest.fixture
async def programs(engine: DockerEngine) -> AsyncIterator[Programs]:
    async with programs_of(engine) as programs:
        yield programs


@pytest.fixture
def busybox(engine: DockerEngine) -> Iterator[DockerContainer]:
    """Named before `programs`, it goes after them: to remove one whose output nobody takes lasts 20 s."""
    started = engine.run(BUSYBOX)
    yield started
    started.remove(force=True)  # and what still runs in it, at full speed maybe
