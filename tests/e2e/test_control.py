"""The command line beside a bastion that runs: its log has one writer, and a session can be ended from outside."""

import contextlib
import sqlite3
import subprocess

import pytest

from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.servers.bastion import BASTION, Bastion
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"


def command_line(bastion: Bastion, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = ["env", *(f"{name}={value}" for name, value in env.items()), *BASTION, *words]
    return subprocess.run(
        [*command, "-c", f"{bastion.folder}/config.yaml"], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "terminal"])
def test_a_session_is_ended_with_a_sentence(bastion: Bastion, start: Start, *, terminal: bool) -> None:
    sentence = b"This session was ended by the administrators: it is late \\x1b[2J"
    why = "it is late \x1b[2J"
    if terminal:
        with on_terminal(bastion.ssh_command(BUSY)) as shell:
            shell.expect(rb"[#$] ")
            session_id = bastion.events("session.start")[-1]["session_id"]
            done = command_line(bastion, "sessions", "kill", session_id[:12], "--why", why)
            shell.expect(b"This session was ended by the administrators: it is late")
            assert shell.wait() == 255
    else:
        client = start(bastion.ssh_command(BUSY, "echo here; sleep 7781"), stderr=subprocess.PIPE)
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n"
        session_id = bastion.events("session.start")[-1]["session_id"]
        done = command_line(bastion, "sessions", "kill", session_id, "--why", why)
        assert sentence in client.communicate(timeout=20)[1]
        assert client.returncode == 255
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{session_id} is ended: alice in web.busy.1\n"
    killed = bastion.wait_for_event("session.killed", session_id=session_id)
    assert (killed["by"], killed["why"], killed["user"], killed["address"]) == ("root", why, "alice", "web.busy.1")
    end = bastion.wait_for_event("session.end", session_id=session_id)
    assert (end["status"], end["reason"]) == ("killed", "killed")

    with contextlib.closing(sqlite3.connect(f"file:{bastion.folder}/bastion.db?mode=ro", uri=True)) as rows:
        status = "SELECT status FROM sessions WHERE session_id = ?"
        wait_until(lambda: rows.execute(status, [session_id]).fetchone() == ("killed",), "the row says so")
    again = command_line(bastion, "sessions", "kill", session_id, "--why", why)
    assert (again.returncode, again.stderr) == (1, f"session {session_id} is over already: killed\n")


def test_a_search_is_in_the_log_of_the_bastion_that_runs(bastion: Bastion) -> None:
    before = len(bastion.events("audit.searched"))
    assert command_line(bastion, "sessions", "list", "--app", "web").returncode == 0
    searched = bastion.events("audit.searched")[before:]
    assert [(event["user"], event["filters"]) for event in searched] == [("root", {"app": "web"})]
    refused = command_line(bastion, "sessions", "list", SUDO_USER="daemon")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "daemon is no auditor (audit.auditors)\n"


@pytest.mark.parametrize(
    "words",
    [
        ("sessions", "list"),
        ("sessions", "grep", "there-is-no-such-word"),
        ("commands", "search"),
        ("audit", "tail"),
    ],
    ids=" ".join,
)
def test_a_search_by_time_is_in_it_too(bastion: Bastion, words: tuple[str, ...]) -> None:
    before = len(bastion.events("audit.searched"))
    done = command_line(bastion, *words, "--since", "2026-11-21T22:50Z")
    assert (done.returncode, done.stderr) == (1 if "grep" in words else 0, "")
    (searched,) = bastion.events("audit.searched")[before:]
    assert searched["filters"]["since"].startswith("2026-11-21")


def test_a_bastion_does_not_start_twice(bastion: Bastion) -> None:
    second = subprocess.run(bastion.command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    state = f"{bastion.folder}/state"
    assert (
        second.stderr == f"{bastion.folder}/config.yaml:1: state_folder: {state} is in use: this bastion runs already\n"
    )
    assert bastion.ssh(BUSY, "true").returncode == 0
