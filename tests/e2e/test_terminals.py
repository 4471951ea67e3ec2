"""Shells on a terminal, through a stock ssh."""

import re

import pytest

from tests.e2e.terminal import on_terminal
from tests.servers.bastion import Bastion
from tests.servers.engine import Engine
from tests.servers.process import wait_until

WEB = "alice+web.worker.1"
BUSY = "alice+web.busy.1"


@pytest.mark.parametrize(("login", "shell"), [(WEB, b"bash"), (BUSY, b"sh")])
def test_a_shell_and_its_exit_status(bastion: Bastion, login: str, shell: bytes) -> None:
    with on_terminal(bastion.ssh_command(login)) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.type(b"echo shell=$0 tty=$(tty)\r")
        terminal.expect(rb"shell=\S*" + shell + rb" tty=/dev/pts/\d+")
        terminal.type(b"exit 7\r")
        assert terminal.wait() == 7


@pytest.mark.parametrize("login", [WEB, BUSY])
@pytest.mark.parametrize("size", [(80, 24), (131, 47), (10, 3)])
def test_the_size_is_right_from_the_first_byte_and_on_every_change(
    bastion: Bastion, login: str, size: tuple[int, int]
) -> None:
    program = 'old=; while :; do new=$(stty size); [ "$new" = "$old" ] || echo "$new"; old=$new; sleep 0.05; done'
    with on_terminal(bastion.ssh_command(login, program, options=("-t",)), *size) as terminal:
        assert terminal.expect(rb"(\d+) (\d+)\r\n").groups() == (b"%d" % size[1], b"%d" % size[0])
        for columns, rows in ((100, 30), (60, 20)):
            terminal.resize(columns, rows)
            terminal.expect(rb"%d %d\r\n" % (rows, columns))
        terminal.type(b"\x03")
        assert terminal.wait() == 130


def test_a_size_that_changes_before_the_program_starts_is_not_forgotten(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB), 80, 24) as terminal:
        terminal.resize(120, 40)
        terminal.expect(rb"[#$] ")
        terminal.type(b"stty size\r")
        terminal.expect(rb"40 120\r\n")


def test_no_size_and_an_absurd_size(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB, "stty size", options=("-t",)), 0, 0) as terminal:
        terminal.expect(rb"24 80\r\n")
    with on_terminal(bastion.ssh_command(WEB, "stty size", options=("-t",)), 65535, 65535) as terminal:
        terminal.expect(rb"\d+ \d+\r\n")
        assert terminal.wait() == 0


def test_term_is_passed_on(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB, "echo $TERM", options=("-t",)), term="screen-256color") as terminal:
        terminal.expect(rb"screen-256color\r\n")


def test_every_key_reaches_the_program(bastion: Bastion) -> None:
    """Docker's detach keys among them: ctrl-p ctrl-q."""
    keys = bytes(range(1, 256))
    command = "stty raw -echo; echo ready; dd bs=1 count=255 2>/dev/null | od -An -v -tx1; stty sane"
    with on_terminal(bastion.ssh_command(WEB, command, options=("-t", "-e", "none"))) as terminal:
        terminal.expect(rb"ready")
        terminal.type(keys)
        dump = terminal.expect(rb"(.* ff)\s")[1]
        assert bytes.fromhex(dump.decode()) == keys
        assert terminal.wait() == 0


def test_ctrl_p_recalls_and_ctrl_c_interrupts(bastion: Bastion, engine: Engine) -> None:
    with on_terminal(bastion.ssh_command(WEB)) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.type(b"echo first-$((40+2))\r")
        terminal.expect(rb"first-42\r\n.*[#$] ")
        terminal.type(b"\x10")
        terminal.expect(rb"echo first-")
        terminal.type(b"\r")
        terminal.expect(rb"first-42\r\n.*[#$] ")
        terminal.type(b"sleep 7770\r")
        worker = engine.client.containers.list(filters={"label": ["bastion.app=web", "bastion.proc=worker"]})[0]
        wait_until(lambda: "sleep 7770" in engine.processes(worker), "the program runs")
        terminal.type(b"\x03")
        terminal.expect(rb"\^C.*[#$] ")
        terminal.type(b"echo $?\r")
        terminal.expect(rb"130\r\n")


def test_utf8_and_wide_characters(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB, 'stty -echo; read line; echo "<$line>"', options=("-t",))) as terminal:
        terminal.type("grüße 漢字 🎉\r".encode())
        terminal.expect("<grüße 漢字 🎉>".encode())


def test_vim_edits_a_file(bastion: Bastion) -> None:
    with on_terminal(bastion.ssh_command(WEB)) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.type(b"vim.tiny /tmp/edited\r")
        terminal.expect(rb"/tmp/edited")
        terminal.type(b"ihello\x1b:wq\r")
        terminal.expect(rb"written.*[#$] ")
        terminal.type(b"cat /tmp/edited\r")
        terminal.expect(rb"hello\r\n")


def test_a_terminal_has_no_stderr_of_its_own(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "echo out; echo err >&2", options=("-tt",))
    assert re.sub(rb"\r", b"", done.stdout) == b"out\nerr\n"
    assert done.stderr == b""
