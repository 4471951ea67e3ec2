"""session.command, end to end: a stock ssh, a real bash, and what the audit log says was run."""

from typing import Any

from tests.e2e.terminal import on_terminal
from tests.servers.bastion import Bastion

WEB = "alice+web.worker.1"
PROMPT = rb"root@[0-9a-f]+:/[^\n]*# "
SECRET = "hunter2hunter2"


def commands(bastion: Bastion, session_id: str) -> list[dict[str, Any]]:
    bastion.wait_for_event("session.end", session_id=session_id)
    return bastion.events("session.command", session_id=session_id)


def test_what_is_typed_into_bash(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB, options=("-tt",))) as terminal:
        terminal.expect(PROMPT)
        terminal.type(b"echo one\r")
        terminal.expect(rb"\rone\r\n.*" + PROMPT)
        terminal.type(b"\x1b[A two\r")
        terminal.expect(rb"\rone two\r\n.*" + PROMPT)
        terminal.type(b"read -sp 'Password: ' P; echo\r")
        terminal.expect(b"Password: $")
        terminal.type(SECRET.encode() + b"\r")
        terminal.expect(PROMPT)
        session_id = bastion.events("session.start")[-1]["session_id"]
        seen = bastion.wait_for_event("session.command", session_id=session_id, content="echo one two")
        assert seen["confidence"] == "likely"  # while the session runs; the history is not in the keys
        terminal.type(b"exit 3\r")
        assert terminal.wait() == 3
    found = commands(bastion, session_id)
    assert [(c["content"], c["confidence"]) for c in found] == [
        ("echo one", "exact"),
        ("echo one two", "likely"),
        ("read -sp 'Password: ' P; echo", "exact"),
        ("[unechoed input]", "unechoed"),
        ("exit 3", "exact"),
    ]
    assert found[3]["prompt"].endswith("Password: ")
    assert all(c["prompt"].endswith("# ") for c in found if c["confidence"] != "unechoed")
    assert not any(c["degraded"] for c in found)
    times = [c["at"] for c in found]
    assert times == sorted(times)
    assert times[0] > 0
    assert SECRET not in (bastion.folder / "audit.jsonl").read_text()


def test_a_command_given_to_ssh_is_one_command(bastion: Bastion) -> None:
    assert bastion.ssh(WEB, "echo 'this very command' | cat").returncode == 0
    session_id = bastion.events("session.start")[-1]["session_id"]
    (found,) = commands(bastion, session_id)
    assert (found["content"], found["confidence"], found["at"]) == ("echo 'this very command' | cat", "exact", 0)


def test_a_script_piped_into_a_shell_is_input(bastion: Bastion) -> None:
    done = bastion.ssh(WEB, "sh -s", stdin=b"echo from a script\nexit 4\n")
    assert (done.stdout, done.returncode) == (b"from a script\n", 4)
    found = commands(bastion, bastion.events("session.start")[-1]["session_id"])
    assert [(c["content"], c["confidence"]) for c in found] == [
        ("sh -s", "exact"),
        ("echo from a script\nexit 4", "input"),
    ]
