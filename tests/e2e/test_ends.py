"""How sessions end: clients that vanish, containers that stop, a bastion that crashes. Nothing stays behind."""

import asyncio
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import asyncssh
import pytest
from docker.models.containers import Container

from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import DEBIAN, Engine
from tests.servers.holding import holding
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"


def left(engine: Engine, container: Container, mark: str) -> list[str]:
    return [line for line in engine.processes(container) if mark in line]


def command(bastion: Bastion, login: str, words: str, *, tty: bool = False) -> list[str]:
    return bastion.ssh_command(login, words, options=("-tt",) if tty else ())


PROGRAMS = {
    "plain": "sleep 7771",
    "children": "sleep 7771 & sleep 7771 & wait",
    "ignores hangup": "trap '' HUP TERM INT; while :; do sleep 7771; done",
    "nohup": "nohup sleep 7771",
    "pipeline": "sleep 7771 | sleep 7771 | cat",
    "setsid": "setsid sleep 7771 & sleep 7771",
    "sudo": "sudo sleep 7771",
    "sudo with its own terminal": (
        "echo 'Defaults use_pty' > /etc/sudoers.d/pty; sudo sh -c 'trap \"\" HUP; sleep 7771; sleep 7771'"
    ),
}


@pytest.mark.parametrize("tty", [False, True], ids=["no terminal", "terminal"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_no_process_is_left_when_the_client_vanishes(
    bastion: Bastion, engine: Engine, program: str, start: Start, *, tty: bool
) -> None:
    container = engine.app("ends", "main", 1, image=DEBIAN)
    client = start(command(bastion, "alice+ends.main.1", program, tty=tty))
    wait_until(lambda: left(engine, container, "7771"), "the program runs")
    client.kill()
    client.wait()
    wait_until(lambda: len(engine.processes(container)) == 1, f"all is gone but {engine.processes(container)}", 20)
    container.remove(force=True)


def test_what_is_left_behind_on_purpose_stays_after_a_clean_end_and_is_counted(
    bastion: Bastion, engine: Engine
) -> None:
    container = engine.app("stays", "main", 1, image=DEBIAN)
    assert (
        bastion.ssh(
            "alice+stays.main.1", "nohup sleep 7772 >/dev/null 2>&1 & setsid sleep 7772 >/dev/null 2>&1 & sleep 0.2"
        ).returncode
        == 0
    )
    event = bastion.wait_for_event("session.end", address="stays.main.1")
    assert event["left_behind"] == 2
    assert len(left(engine, container, "7772")) == 2


@pytest.mark.parametrize("tty", [False, True], ids=["no terminal", "terminal"])
@pytest.mark.parametrize("how", ["kill", "stop", "remove"])
def test_a_container_that_stops_ends_its_sessions_with_a_sentence(
    bastion: Bastion, engine: Engine, how: str, start: Start, *, tty: bool
) -> None:
    container = engine.app("stops", "main", 1)
    client = start(command(bastion, "alice+stops.main.1", "sleep 7773; echo still here", tty=tty))
    other = start(command(bastion, BUSY, "cat"))
    wait_until(lambda: left(engine, container, "7773"), "the program runs")
    if not tty:
        client = start(
            bastion.ssh_command("alice+stops.main.1", "sleep 7774"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: left(engine, container, "7774"), "the program runs")
    {"kill": container.kill, "stop": container.stop, "remove": lambda: container.remove(force=True)}[how]()
    said, errors = client.communicate(timeout=5)
    assert b"stopped" in (said if tty else errors)
    assert client.returncode == 255
    out, _ = other.communicate(b"unharmed", timeout=5)
    assert out == b"unharmed"
    if how != "remove":
        container.remove(force=True)


def test_a_paused_container_holds_its_sessions_and_refuses_new_ones(
    bastion: Bastion, engine: Engine, start: Start
) -> None:
    container = engine.app("paused", "main", 1)
    held = start(command(bastion, "alice+paused.main.1", "while read line; do echo got $line; done; exit 9"))
    gone = start(command(bastion, "alice+paused.main.1", "trap '' HUP; sleep 7775"))
    wait_until(lambda: left(engine, container, "7775"), "the program runs")
    container.pause()
    done = bastion.ssh("alice+paused.main.1", "true")
    assert done.returncode == 1
    assert b"paused" in done.stderr
    gone.kill()
    gone.wait()
    assert held.stdin is not None
    held.stdin.write(b"hello\n")
    held.stdin.flush()
    container.unpause()
    out, _ = held.communicate(timeout=10)
    assert (out, held.returncode) == (b"got hello\n", 9)
    wait_until(lambda: not left(engine, container, "7775"), "what the vanished client ran is cleaned up")
    container.remove(force=True)


@pytest.mark.parametrize("name", ["INT", "TERM", "USR1", "HUP"])
async def test_signals_reach_the_program(bastion: Bastion, name: str) -> None:
    async with asyncssh.connect(
        "127.0.0.1", bastion.port, username=BUSY, client_keys=[f"{bastion.folder}/alice_key"], known_hosts=None
    ) as connection:
        process = await connection.create_process(
            f"trap 'echo caught {name}; exit 6' {name}; echo ready; while :; do sleep 0.1; done"
        )
        assert await process.stdout.readline() == "ready\n"
        process.send_signal(name)
        done = await asyncio.wait_for(process.wait(), 15)
        assert (done.stdout, done.exit_status) == (f"caught {name}\n", 6)
        process = await connection.create_process("echo ready; exec sleep 7776")
        assert await process.stdout.readline() == "ready\n"
        process.send_signal(name)
        done = await asyncio.wait_for(process.wait(), 15)
        assert done.exit_signal is not None
        assert done.exit_signal[0] == name


def test_a_channel_that_is_closed_while_the_others_go_on(bastion: Bastion, engine: Engine, start: Start) -> None:
    container = engine.app("channels", "main", 1)
    login = "alice+channels.main.1"
    control = ("-o", f"ControlPath={bastion.folder}/mux-ends", "-o", "ControlMaster=auto", "-o", "ControlPersist=30")
    try:
        assert bastion.ssh(login, "true", options=control).returncode == 0
        stays = start(bastion.ssh_command(login, "cat", options=control), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        goes = start(
            bastion.ssh_command(login, "sleep 7777", options=(*control, "-tt")),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: left(engine, container, "7777"), "the program runs")
        goes.kill()
        goes.wait()
        wait_until(lambda: not left(engine, container, "7777"), "its program is gone")
        out, _ = stays.communicate(b"still here", timeout=10)
        assert out == b"still here"
    finally:
        subprocess.run([*bastion.ssh_command(login, options=control), "-O", "exit"], capture_output=True, check=False)
        container.remove(force=True)


def test_after_a_crash_of_the_bastion_the_next_one_sweeps(tmp_path: Path, engine: Engine, start: Start) -> None:
    container = engine.app("crash", "main", 1, image=DEBIAN)
    with serving(tmp_path, engine.url) as first:
        client = start(command(first, "alice+crash.main.1", "trap '' HUP; sudo sleep 7778; sleep 7778", tty=True))
        wait_until(lambda: left(engine, container, "sleep 7778"), "the program runs")
        session = first.wait_for_event("session.start", address="crash.main.1")["session_id"]
        first.kill()
        client.wait(10)
    assert left(engine, container, "sleep 7778")
    with serving(tmp_path, engine.url, first.port) as second:
        wait_until(lambda: len(engine.processes(container)) == 1, "the next bastion has swept", 30)
        rows = subprocess.run(
            [*second.command[:-3], "sessions", "list", "--json", "-c", f"{tmp_path}/config.yaml"],
            capture_output=True,
            check=True,
            text=True,
        )
        assert session in rows.stdout
        assert '"lost"' in rows.stdout
        assert second.ssh("alice+crash.main.1", "echo again").stdout == b"again\n"
    container.remove(force=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_shutdown_sessions_end_with_a_sentence_and_nothing_is_left(
    tmp_path: Path, engine: Engine, start: Start, number: signal.Signals
) -> None:
    container = engine.app("shutdown", "main", 1)
    with serving(tmp_path, engine.url) as bastion:
        client = start(
            bastion.ssh_command("alice+shutdown.main.1", "sleep 7779"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_until(lambda: left(engine, container, "7779"), "the program runs")
        os.kill(bastion.process.pid, number)
        _, errors = client.communicate(timeout=15)
        assert b"shutting down" in errors
        assert client.returncode == 255
        assert bastion.process.wait(15) == 0
        assert bastion.events("session.end")[-1]["status"] == "cut"
    assert len(engine.processes(container)) == 1
    container.remove(force=True)


def test_a_shell_whose_terminal_is_closed(bastion: Bastion, engine: Engine) -> None:
    container = engine.app("closed", "main", 1, image=DEBIAN)
    with on_terminal(bastion.ssh_command("alice+closed.main.1")) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.type(b"sleep 7780 & vim.tiny\r")
        terminal.expect(rb"VIM")
    wait_until(lambda: len(engine.processes(container)) == 1, "all is gone", 20)
    container.remove(force=True)


def test_a_client_that_reads_no_more_ends_the_program_as_a_closed_pipe_would(
    bastion: Bastion, engine: Engine, start: Start
) -> None:
    """`ssh host yes | head -1`: OpenSSH says so by eow@openssh.com, and goes on waiting."""
    container = engine.app("eow", "main", 1)
    client = start(command(bastion, "alice+eow.main.1", "yes; echo after > /tmp/after"))
    assert client.stdout is not None
    assert client.stdout.read(4) == b"y\ny\n"
    client.stdout.close()
    client.stdout = None
    wait_until(lambda: not left(engine, container, "yes"), "yes has ended")
    client.wait(10)
    container.remove(force=True)


def test_an_engine_that_is_stuck_when_the_client_vanishes(bastion: Bastion, engine: Engine, start: Start) -> None:
    container = engine.app("stuck", "main", 1)
    running = start(command(bastion, "alice+stuck.main.1", "trap '' HUP; while :; do sleep 7783; done"))
    wait_until(lambda: left(engine, container, "7783"), "the program runs")
    os.kill(engine.process.pid, signal.SIGSTOP)
    try:
        before = len(bastion.events("user.login"))
        starting = start(command(bastion, "alice+stuck.main.1", "sleep 7784"))
        wait_until(
            lambda: len(bastion.events("user.login")) > before, "its session begins with a question to the engine"
        )
        for client in (running, starting):
            client.kill()
            client.wait()
        bastion.wait_for_event("connection.close", connection_id=bastion.events("connection.open")[-1]["connection_id"])
    finally:
        os.kill(engine.process.pid, signal.SIGCONT)
    bastion.wait_for_event("session.end", address="stuck.main.1")
    wait_until(lambda: len(engine.processes(container)) == 1, "all is gone", 30)
    container.remove(force=True)


@pytest.mark.parametrize("late", [False, True], ids=["then goes on", "goes on when it was given up"])
def test_an_engine_that_is_stuck_between_the_making_of_a_program_and_its_start(
    servers_folder: Path, folder: Path, engine: Engine, start: Start, *, late: bool
) -> None:
    container = engine.app("held", "main", 1)
    with (
        tempfile.TemporaryDirectory(dir=servers_folder) as short,  # a unix socket's path has at most 107 bytes
        holding(Path(short), engine) as held,
        serving(folder, engine.url, engines=[{"name": "test", "url": held.url, "timeout": 2}]) as bastion,
    ):
        assert bastion.ssh("alice+held.main.1", "echo here").stdout == b"here\n"
        bastion.wait_for_event("session.end", address="held.main.1")  # what it left behind has been counted
        held.armed.set()
        client = start(command(bastion, "alice+held.main.1", "trap '' HUP INT TERM; while :; do sleep 7785; done"))
        wait_until(held.reached.is_set, "the engine is asked for the start")
        session = bastion.events("session.start")[-1]["session_id"]
        client.kill()
        client.wait()
        if late:
            bastion.wait_for_event("session.end", session_id=session)
        else:
            bastion.wait_for_event("connection.close", connection_id=bastion.events("user.login")[-1]["connection_id"])
        held.release.set()
        wait_until(lambda: engine.client.api.exec_inspect(held.exec_id)["Pid"], "the program has been started")
        bastion.wait_for_event("session.end", session_id=session)
        wait_until(lambda: len(engine.processes(container)) == 1, "all is gone", 30)
    container.remove(force=True)
