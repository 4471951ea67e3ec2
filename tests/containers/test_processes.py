import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container as DockerContainer

from bastion import config
from bastion.containers.engine import Engine
from bastion.containers.exec import Exec
from bastion.containers.processes import Reaper
from bastion.errors import Refusal
from bastion.model import Terminal
from tests.containers.conftest import TERMINAL, Programs, model_of, read_all, read_until, until
from tests.servers.engine import BUSYBOX, DEBIAN
from tests.servers.engine import Engine as DockerEngine

READY = "echo ready; "
USE_PTY = "echo 'Defaults use_pty' >/etc/sudoers.d/pty; "


@pytest.fixture(params=[BUSYBOX, DEBIAN])
def container(request: pytest.FixtureRequest, engine: DockerEngine) -> Iterator[DockerContainer]:
    started = engine.run(request.param)
    yield started
    started.remove(force=True)


@pytest.fixture
def debian(engine: DockerEngine) -> DockerContainer:
    return engine.run(DEBIAN)


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    reaper = Reaper()
    yield reaper
    await reaper.close(0)


async def started(programs: Programs, container: DockerContainer, command: str, **kwargs: object) -> Exec:
    program = await programs.start(container, command, **kwargs)  # type: ignore[arg-type]
    await read_until(program, b"ready")
    return program


async def counted(program: Exec, number: int) -> None:
    async def right() -> bool:
        return await program.left_behind() == number

    await until(right, f"{number} processes are counted")


async def only_main_is_left(programs: Programs, container: DockerContainer) -> None:
    async def alone() -> bool:
        return [line for line in programs.docker.processes(container) if "defunct" not in line] == ["sleep 1000000"]

    await until(alone, "only the main process is left")


def end(reaper: Reaper, program: Exec) -> None:
    reaper.reap(program.engine, program.container, program.session_id, program.is_over)


@pytest.mark.parametrize("terminal", [None, TERMINAL])
@pytest.mark.parametrize(
    "command",
    [
        READY + "sleep 1001",
        READY + "sleep 1001 & sleep 1002 | cat; sleep 1003",
        "trap '' HUP TERM INT; " + READY + "sleep 1001; sleep 1002",
        "(trap '' HUP; sleep 1001) >/dev/null 2>&1 & " + READY + "sleep 1002",
        "setsid sleep 1001 & setsid env -i sleep 1002 & " + READY + "sleep 1003",
        "(trap '' HUP; setsid env -i setsid sleep 1001 & ) & " + READY + "exec sleep 1002",
        "(while :; do sleep 1001 & sleep 0.05; done) & " + READY + "exec cat",
        READY + "exec cat /dev/zero",
        READY + "kill -STOP $$",
    ],
)
async def test_nothing_is_left(
    container: DockerContainer, programs: Programs, reaper: Reaper, command: str, terminal: Terminal | None
) -> None:
    program = await started(programs, container, command, terminal=terminal)
    bystander = await started(programs, container, READY + "exec cat")
    end(reaper, program)
    await program.close()
    await asyncio.wait_for(reaper.idle(), 40)
    assert not await bystander.is_over()
    assert await bystander.left_behind() == 1
    end(reaper, bystander)
    await asyncio.wait_for(reaper.idle(), 40)
    await only_main_is_left(programs, container)


@pytest.mark.parametrize("user", [None, "nobody"])
@pytest.mark.parametrize("terminal", [None, TERMINAL])
@pytest.mark.parametrize(
    "command",
    [
        "sudo sh -c 'echo ready; sleep 1001'",
        "exec sudo sh -c 'trap \"\" HUP; echo ready; setsid sleep 1001 & sleep 1002'",
        "sudo -b setsid sleep 1001; echo ready; sleep 1002",
    ],
)
async def test_nothing_is_left_of_sudo(
    programs: Programs,
    debian: DockerContainer,
    reaper: Reaper,
    command: str,
    terminal: Terminal | None,
    user: str | None,
) -> None:
    for setup in ("", USE_PTY):
        await programs.run(debian, setup + "true")
        program = await started(programs, debian, command, terminal=terminal, user=user)
        end(reaper, program)
        await program.close()
        await asyncio.wait_for(reaper.idle(), 40)
        await only_main_is_left(programs, debian)


async def test_without_grep_and_fractions_of_seconds(
    busybox: DockerContainer, programs: Programs, reaper: Reaper
) -> None:
    await programs.run(busybox, "rm /bin/grep")
    program = await started(programs, busybox, "setsid env -i sleep 1001 & " + READY + "trap '' HUP; sleep 1002; :")
    other = await started(programs, busybox, READY + "sleep 1003; :")
    await counted(program, 3)
    end(reaper, program)
    await asyncio.wait_for(reaper.idle(), 40)
    assert await program.left_behind() == 0
    await counted(other, 2)


async def test_twenty_at_once(container: DockerContainer, programs: Programs, reaper: Reaper) -> None:
    command = "trap '' HUP; setsid sleep 1001 & " + READY + "sleep 1002"
    several = await asyncio.gather(*(started(programs, container, command) for _ in range(20)))
    for program in several:
        end(reaper, program)
    await asyncio.gather(*(program.close() for program in several))
    await asyncio.wait_for(reaper.idle(), 60)
    await only_main_is_left(programs, container)


async def test_a_client_that_leaves_during_the_start(
    busybox: DockerContainer, programs: Programs, reaper: Reaper
) -> None:
    for _ in range(5):
        program = await programs.start(busybox, "sleep 1001")
        end(reaper, program)
        await program.close()
        await asyncio.wait_for(reaper.idle(), 40)
        assert await program.is_over()
    await only_main_is_left(programs, busybox)


async def test_an_exec_that_is_yet_to_begin_is_waited_for(
    busybox: DockerContainer, programs: Programs, reaper: Reaper
) -> None:
    asked = 0

    async def is_over() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    reaper.reap(programs.engine, model_of(busybox), "no-process-yet", is_over)
    await asyncio.wait_for(reaper.idle(), 40)
    assert asked == 3


async def test_a_paused_container_is_waited_for(busybox: DockerContainer, programs: Programs, reaper: Reaper) -> None:
    before = await started(programs, busybox, READY + "sleep 1001")
    busybox.pause()
    end(reaper, before)
    await before.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reaper.idle(), 0.6)
    busybox.unpause()
    await asyncio.wait_for(reaper.idle(), 40)
    # and in the middle of the grace period
    during = await started(programs, busybox, "trap '' HUP; " + READY + "sleep 1002 & wait; sleep 1003")
    end(reaper, during)
    await during.close()

    async def hung_up() -> bool:
        return "sleep 1003" in str(programs.docker.processes(busybox))

    await until(hung_up, "it is hung up")
    busybox.pause()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reaper.idle(), 0.6)
    busybox.unpause()
    await asyncio.wait_for(reaper.idle(), 60)
    await only_main_is_left(programs, busybox)


async def test_a_container_that_is_gone_needs_nothing(programs: Programs, engine: DockerEngine, reaper: Reaper) -> None:
    for after in ("kill", "remove"):
        container = engine.run()
        program = await started(programs, container, READY + "sleep 1001")
        container.kill()
        container.wait()
        if after == "remove":
            container.remove()
        end(reaper, program)
        await asyncio.wait_for(reaper.idle(), 20)


async def test_an_engine_that_does_not_answer_is_waited_for(
    engine: DockerEngine, busybox: DockerContainer, programs: Programs, reaper: Reaper, tmp_path: Path
) -> None:
    program = await started(programs, busybox, READY + "sleep 1001")
    link = tmp_path / "s"
    away = Engine(config.Engine(url=f"unix://{link}", timeout=10))
    reaper.reap(away, program.container, program.session_id)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reaper.idle(), 0.6)
    link.symlink_to(engine.url.removeprefix("unix://"))
    await asyncio.wait_for(reaper.idle(), 40)
    await only_main_is_left(programs, busybox)
    await away.close()


async def test_what_is_left_after_a_crash_is_found_by_the_session_id(
    container: DockerContainer, programs: Programs, reaper: Reaper
) -> None:
    lost = await started(programs, container, "setsid sleep 1001 & " + READY + "sleep 1002")
    kept = await started(programs, container, "setsid sleep 1003 >/dev/null 2>&1 & " + READY + "exit 0")
    await read_all(kept)
    reaper.reap(programs.engine, model_of(container), lost.session_id)
    await asyncio.wait_for(reaper.idle(), 40)
    assert await lost.left_behind() == 0
    await counted(kept, 1)


async def test_what_was_left_behind_on_purpose_is_counted(container: DockerContainer, programs: Programs) -> None:
    command = "sleep 1001 >/dev/null 2>&1 & setsid env -i sleep 1002 >/dev/null 2>&1 & " + READY + "exit 0"
    program = await started(programs, container, command)
    await read_all(program)
    assert await program.wait() == 0
    await counted(program, 2)
    clean = await started(programs, container, READY)
    await read_all(clean)
    assert await clean.left_behind() == 0


async def test_close_gives_up_after_its_grace(
    busybox: DockerContainer, programs: Programs, caplog: pytest.LogCaptureFixture
) -> None:
    program = await started(programs, busybox, READY + "sleep 1001")
    busybox.pause()
    reaper = Reaper()
    end(reaper, program)
    began = time.monotonic()
    await reaper.close(0.3)
    assert time.monotonic() - began < 5
    assert program.session_id in caplog.text
    busybox.unpause()


async def test_no_name_of_a_process_leads_to_another(programs: Programs, debian: DockerContainer) -> None:
    """The name in /proc/PID/stat may hold what looks like the fields that follow it, and line ends."""
    await programs.run(debian, "cp /bin/sleep '/tmp/x) S 1 1 1'; cp /bin/sleep '/tmp/a\n7 (b) S 1'")
    one = await started(programs, debian, "'/tmp/x) S 1 1 1' 1001 & '/tmp/a\n7 (b) S 1' 1002 & " + READY + "wait")
    await counted(one, 3)


async def test_the_scripts_of_others_are_not_run_as_root(
    programs: Programs, engine: DockerEngine, reaper: Reaper
) -> None:
    """PATH of the image may name a folder of the user's; the script that ends processes runs as root."""
    container = engine.run(environment={"PATH": "/tmp/bin:/bin", "ENV": "/tmp/bin/grep"})
    for name in ("grep", "sleep"):
        command = (
            f"mkdir -p /tmp/bin; printf '#!/bin/sh\\nid -u >>/tmp/ran\\n' >/tmp/bin/{name}; chmod +x /tmp/bin/{name}"
        )
        await programs.run(container, command)
    program = await started(programs, container, READY + "trap '' HUP; /bin/sleep 1001")
    end(reaper, program)
    await asyncio.wait_for(reaper.idle(), 40)
    assert (await programs.run(container, "cat /tmp/ran"))[0] == 1


async def test_a_container_without_a_shell_is_an_error(busybox: DockerContainer, programs: Programs) -> None:
    program = await started(programs, busybox, READY + "exec sleep 1001")
    await programs.run(busybox, "rm /bin/sh")
    with pytest.raises(Refusal):
        await program.left_behind()
