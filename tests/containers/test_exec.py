import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from docker.models.containers import Container as DockerContainer

from bastion.containers.attach import HIGH_WATER, RECEIVE
from bastion.containers.shell import shell_argv
from bastion.errors import Reason, Refusal
from bastion.model import Stream, Terminal
from tests.containers.conftest import TERMINAL, Programs, drained, joined, programs_of, read_all, read_until, until
from tests.servers.engine import BUSYBOX, DEBIAN, NO_SHELL
from tests.servers.engine import Engine as DockerEngine


@pytest.fixture(params=[BUSYBOX, DEBIAN])
def container(request: pytest.FixtureRequest, engine: DockerEngine) -> Iterator[DockerContainer]:
    started = engine.run(request.param)
    yield started
    started.remove(force=True)


async def test_exit_statuses(container: DockerContainer, programs: Programs) -> None:
    for status in (0, 1, 42, 126, 127, 255):
        assert (await programs.run(container, f"exit {status}"))[0] == status
    assert (await programs.run(container, "kill -KILL $$"))[0] == 128 + 9
    assert (await programs.run(container, "kill -TERM $$"))[0] == 128 + 15
    assert (await programs.run(container, "no-such-command"))[0] == 127


async def test_stdout_and_stderr_are_apart_and_every_byte_passes(
    container: DockerContainer, programs: Programs
) -> None:
    data = bytes(range(256)) + os.urandom(5 << 20)
    assert await programs.run(container, "cat", data) == (0, data, b"")
    digest = hashlib.sha1(data).hexdigest().encode()
    assert await programs.run(container, "tee /dev/stderr | sha1sum", data) == (0, digest + b"  -\n", data)


async def test_half_close_either_way(container: DockerContainer, programs: Programs) -> None:
    assert (await programs.run(container, "wc -c; exit 3", b"x" * 100_000))[:2] == (3, b"100000\n")
    # Output closed, input goes on.
    command = "echo out; exec >&- 2>&-; cat >/tmp/got; exit 5"
    assert await programs.run(container, command, b"y" * 1_000_000) == (5, b"out\n", b"")
    assert (await programs.run(container, "wc -c </tmp/got"))[1] == b"1000000\n"


async def test_output_is_complete_when_the_program_does_not_read_its_input(
    container: DockerContainer, programs: Programs
) -> None:
    program = await programs.start(container, "head -c 3000000 /dev/zero; exit 4")
    reading = asyncio.create_task(read_all(program))
    while not reading.done():
        program.write(b"z" * 10_000)
        await asyncio.sleep(0)
    assert len(joined(reading.result())) == 3_000_000
    assert await program.wait() == 4


async def test_a_background_child_that_holds_stdout(container: DockerContainer, programs: Programs) -> None:
    status, out, _ = await programs.run(container, "(sleep 1; echo late) & echo soon; exit 6")
    assert (status, out) == (6, b"soon\nlate\n")


async def test_environment_user_and_folder(container: DockerContainer, programs: Programs) -> None:
    env = {"LANG": "de_DE.UTF-8", "LC_ALL": "x y\n'z'", "BASTION_SESSION": "mine"}
    program = await programs.start(container, 'echo "$LANG|$LC_ALL|$TERM"; id -u; pwd; echo $BASTION_SESSION', env=env)
    assert joined(await read_all(program)).decode() == f"de_DE.UTF-8|x y\n'z'|\n0\n/\n{program.session_id}\n"
    assert (await programs.run(container, "id -u; pwd", user="65534", workdir="/tmp"))[1] == b"65534\n/tmp\n"


async def test_the_size_is_right_from_the_first_byte(container: DockerContainer, programs: Programs) -> None:
    for columns in range(100, 120):
        program = await programs.start(container, "stty size; echo $TERM", terminal=Terminal("vt220", columns, 33))
        assert joined(await read_all(program)) == b"33 %d\r\nvt220\r\n" % columns


@pytest.mark.parametrize(
    ("asked", "got"),
    [((0, 0), b"24 80"), ((0, 50), b"50 80"), ((2**31, 2**32 - 1), b"65535 65535"), ((1, 1), b"1 1")],
)
async def test_odd_sizes(programs: Programs, engine: DockerEngine, asked: tuple[int, int], got: bytes) -> None:
    program = await programs.start(engine.run(DEBIAN), "stty size", terminal=Terminal("x", *asked))
    assert joined(await read_all(program)) == got + b"\r\n"


async def test_a_terminal_without_stty_starts_at_once(busybox: DockerContainer, programs: Programs) -> None:
    await programs.run(busybox, "rm /bin/stty")
    began = time.monotonic()
    program = await programs.start(busybox, "echo here", terminal=TERMINAL)
    assert joined(await read_all(program)) == b"here\r\n"
    with_stty = time.monotonic() - began
    assert with_stty < 10


async def test_resize_the_newest_wins(container: DockerContainer, programs: Programs) -> None:
    command = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    program = await programs.start(container, command, terminal=TERMINAL)
    await read_until(program, b"ready")
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "the loop went on")
    for columns in range(50, 90):
        await program.resize(columns, 20)
    await program.resize(0, 0)
    assert not turns, "nobody waits for a resize"
    await read_until(program, b"20 89\r\n")
    await programs.run(container, "true")
    await program.resize(77, 66)
    await read_until(program, b"66 77\r\n")


async def test_keys_reach_the_program_untouched(busybox: DockerContainer, programs: Programs) -> None:
    program = await programs.start(busybox, "stty raw -echo; echo ready; exec cat", terminal=TERMINAL)
    await read_until(program, b"ready")
    for number in range(256):
        if number == 0:  # NUL: held back by the engine until the next key
            continue
        program.write(bytes([number]))
        assert await asyncio.wait_for(program.read(), 10) == [(Stream.OUTPUT, bytes([number]))], number
    for keys in (b"\x10\x11", b"\x1e\x1e", b"\0\0", b"\x1d\x1d", b"\x1d\0\x1d\x1ex", bytes(range(256)) * 20):
        program.write(keys)
        assert await read_until(program, keys) == keys


async def test_a_shell_is_bash_where_there_is_one(container: DockerContainer, programs: Programs) -> None:
    program = await programs.start(container, shell_argv({}), terminal=TERMINAL)
    program.write(b"echo shell is $0 $((6 * 7)); exit 9\n")
    output = joined(await read_all(program))
    name = b"bash" if DEBIAN in container.image.tags else b"sh"
    assert b"shell is " + name + b" 42\r\n" in output
    assert await program.wait() == 9


async def test_a_shell_reads_a_script_without_a_terminal(container: DockerContainer, programs: Programs) -> None:
    assert (await programs.run(container, shell_argv({}), b"echo a\nexit 8\n"))[:2] == (8, b"a\n")


async def test_the_end_of_input_leaves_a_terminal_open(busybox: DockerContainer, programs: Programs) -> None:
    program = await programs.start(busybox, "sleep 0.5; echo late", terminal=TERMINAL)
    program.write_eof()
    assert joined(await read_all(program)) == b"late\r\n"


@pytest.mark.parametrize("terminal", [None, TERMINAL])
async def test_what_can_not_be_started_is_told_apart(
    engine: DockerEngine, busybox: DockerContainer, programs: Programs, terminal: Terminal | None
) -> None:
    for container, options, reason, words in (
        (engine.run(NO_SHELL, command="/bin/sleep 1000000"), {}, Reason.NO_SHELL, "no such file"),
        (busybox, {"user": "nobody-here"}, Reason.ENGINE_ERROR, "nobody-here"),
        (busybox, {"workdir": "/not-here"}, Reason.ENGINE_ERROR, "/not-here"),
    ):
        program = await programs.start(container, "echo hi", terminal=terminal, **options)
        with pytest.raises(Refusal) as caught:
            await read_all(program)
        assert caught.value.reason is reason
        assert words in caught.value.log_text
        assert words not in caught.value.user_text
        with pytest.raises(Refusal):
            await program.wait()


@pytest.mark.parametrize("terminal", [None, TERMINAL])
async def test_a_program_may_print_what_engines_print(
    busybox: DockerContainer, programs: Programs, terminal: Terminal | None
) -> None:
    words = 'OCI runtime exec failed: exec failed: exec: "/bin/sh": stat /bin/sh: no such file'
    program = await programs.start(busybox, f"echo '{words}'; exit 126", terminal=terminal)
    assert joined(await read_all(program)).strip().decode() == words
    assert await program.wait() == 126


async def test_paused_stopped_and_gone(programs: Programs, engine: DockerEngine) -> None:
    container = engine.run()
    program = await programs.start(container, "echo up; sleep 100")
    await read_until(program, b"up")
    container.pause()
    with pytest.raises(Refusal) as caught:
        await programs.start(container, "true")
    assert caught.value.reason is Reason.CONTAINER_PAUSED
    container.unpause()
    # What the engine says where the pause comes in the middle of the start; making it do so hangs it now and then.
    assert program._not_started("cannot exec in a paused state: unknown").reason is Reason.CONTAINER_PAUSED
    container.kill()
    container.wait()
    assert await read_all(program) == []
    assert await asyncio.wait_for(program.wait(), 10) == 128 + 9
    with pytest.raises(Refusal) as caught:
        await programs.start(container, "true")
    assert caught.value.reason is Reason.CONTAINER_NOT_RUNNING
    container.remove()
    with pytest.raises(Refusal) as caught:
        await programs.start(container, "true")
    assert caught.value.reason is Reason.NO_SUCH_CONTAINER
    with pytest.raises(Refusal):
        await program.wait()


@pytest.mark.parametrize("name", ["INT", "TERM", "USR1"])
@pytest.mark.parametrize("terminal", [None, TERMINAL])
async def test_signals_reach_the_program(
    container: DockerContainer, programs: Programs, name: str, terminal: Terminal | None
) -> None:
    command = f"trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    program = await programs.start(container, command, terminal=terminal)
    await read_until(program, b"ready")
    await program.signal("NONSENSE")
    await program.signal("; kill 1")
    await program.signal(name)
    await read_until(program, b"got")
    await read_all(program)
    assert await program.wait() == 7


async def test_a_signal_ends_a_program_that_takes_no_input(busybox: DockerContainer, programs: Programs) -> None:
    program = await programs.start(busybox, "exec sleep 1000")
    other = await programs.start(busybox, "exec sleep 1000")
    await program.signal("KILL")
    assert await read_all(program) == []
    assert await program.wait() == 128 + 9
    assert not await other.is_over()
    await other.signal("TERM")
    assert await read_all(other) == []
    assert await other.wait() == 128 + 15
    assert await other.is_over()


async def test_backpressure_both_ways(busybox: DockerContainer, programs: Programs) -> None:
    program = await programs.start(busybox, "yes")
    attached = program._attach

    async def stalled() -> bool:
        return attached.stalled

    await until(stalled, "the output waits")
    assert attached.buffered <= HIGH_WATER + RECEIVE + 1000
    reader = await programs.start(busybox, "sleep 0.5; sha1sum")
    data, written, most = os.urandom(1 << 20), hashlib.sha1(), 0
    for _ in range(20):
        reader.write(data)
        written.update(data)
        most = max(most, reader._attach.unsent)
        await drained(reader._attach)
    reader.write_eof()
    assert joined(await read_all(reader)).startswith(written.hexdigest().encode())
    assert most <= HIGH_WATER + len(data)


async def test_a_client_that_is_stuck_holds_up_no_other_session(container: DockerContainer, programs: Programs) -> None:
    """Unread output of a program that has ended blocks the ends of others in this engine, until it is taken."""
    await _stuck_client(container, programs)


async def _stuck_client(container: DockerContainer, programs: Programs) -> None:
    stuck = await programs.start(container, "exec yes")
    attached = stuck._attach

    async def stalled() -> bool:
        return attached.stalled

    await until(stalled, "the output waits")
    await stuck.signal("KILL")
    assert await asyncio.wait_for(programs.run(container, "echo fine; exit 3"), 20) == (3, b"fine\n", b"")
    assert attached.buffered > HIGH_WATER  # and nothing of it is lost
    chunks = await read_all(stuck)
    assert set(joined(chunks)) == set(b"y\n")
    assert await stuck.wait() == 128 + 9


async def test_many_at_once(busybox: DockerContainer, programs: Programs) -> None:
    results = await asyncio.gather(*(programs.run(busybox, f"echo {n}; exit {n}") for n in range(30)))
    assert results == [(n, b"%d\n" % n, b"") for n in range(30)]
    assert programs.engine.starts._value == programs.engine.section.exec_starts


@pytest.fixture
async def programs_of_newer(newer_engine: DockerEngine) -> AsyncIterator[Programs]:
    async with programs_of(newer_engine) as programs:
        yield programs


async def test_from_api_1_42_on_the_engine_makes_the_terminal_with_its_size(
    programs_of_newer: Programs, newer_engine: DockerEngine
) -> None:
    """Without stty nothing waits for it in the container: the first that the program sees is what the engine made."""
    container = newer_engine.run()
    await programs_of_newer.run(container, "rm /bin/stty")
    for columns in range(100, 120):
        program = await programs_of_newer.start(container, "busybox stty size", terminal=Terminal("x", columns, 33))
        assert joined(await read_all(program)) == b"33 %d\r\n" % columns
    container.remove(force=True)


async def test_nor_does_it_on_a_newer_engine(programs_of_newer: Programs, newer_engine: DockerEngine) -> None:
    """Which does not even answer the question whether the stuck one still runs."""
    container = newer_engine.run()
    await _stuck_client(container, programs_of_newer)
    container.remove(force=True)
