"""`bastion play ID` and `bastion sessions watch ID`, as processes of their own."""

import asyncio
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from bastion.audit.database import upgrade
from bastion.config import load_config
from bastion.recording.asciicast import Header, encode_header, encode_text
from tests.e2e.terminal import Terminal, on_terminal

HEADER = encode_header(Header("abc-1", "alice", "web", 0, 90, 25, terminal=True))
SHOWN = encode_text(0, "o", "hello \x1b]0;evil\x07world\r\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("auth:\n  local: {}\nrecording:\n  folder: recordings\n")
    asyncio.run(upgrade(load_config(tmp_path / "config.yaml").database))
    folder = tmp_path / "recordings/2024/01/02"
    folder.mkdir(parents=True)
    (folder / "abc-1.cast").write_bytes(HEADER + SHOWN + encode_text(0.1, "o", "end"))
    (folder / "slow.cast").write_bytes(HEADER + SHOWN + encode_text(600, "o", "later") + encode_text(1200, "o", "end"))
    (folder / "cut.cast").write_bytes(HEADER + SHOWN + b'[1.0, "o", "en')
    return folder


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "bastion", *words, "-c", str(folder.parents[3] / "config.yaml")]


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        command(folder, "play", *words), capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60
    )


def test_plays_by_the_beginning_of_the_id(folder: Path) -> None:
    done = run(folder, "--speed", "100", "abc")
    assert done.stdout.startswith(b"hello world\r\nend")
    assert b"evil" not in done.stdout
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("options", [("--idle-limit", "0"), ("--at", "20:00")])
def test_what_shortens_a_long_pause(folder: Path, options: Sequence[str]) -> None:
    assert b"hello world\r\nlaterend" in run(folder, *options, "slow").stdout


def test_what_is_not_there_is_a_sentence(folder: Path) -> None:
    done = run(folder, "nothing")
    assert done.returncode == 1
    assert b"no recording of a session nothing" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_recording_cut_short_says_so(folder: Path) -> None:
    done = run(folder, "cut")
    assert (done.returncode, done.stdout[:11]) == (0, b"hello world")
    assert b"cut short" in done.stderr


def test_interrupt_resets_the_terminal(folder: Path) -> None:
    with subprocess.Popen(command(folder, "play", "slow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        assert player.stdout is not None
        assert player.stderr is not None
        assert player.stdout.readline() == b"hello world\r\n"
        player.send_signal(signal.SIGINT)
        assert player.stdout.read().endswith(b"\x1b[0m")
        assert b"Traceback" not in player.stderr.read()
    assert player.returncode == 130


def test_a_reader_that_goes_away(folder: Path) -> None:
    words = command(folder, "play", "--speed", "0.1", "abc")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        assert player.stdout is not None
        assert player.stderr is not None
        player.stdout.readline()
        player.stdout.close()
        assert player.stderr.read() == b""
    assert player.returncode == 141


@pytest.mark.parametrize("option", [("--speed", "0"), ("--at", "soon")])
def test_impossible_options(folder: Path, option: tuple[str, str]) -> None:
    assert run(folder, *option, "abc").returncode == 2


def modes(terminal: Terminal) -> list[object]:
    return termios.tcgetattr(terminal.master)


def test_keys_on_a_terminal_and_the_terminal_afterwards(folder: Path) -> None:
    with on_terminal(command(folder, "play", "slow"), 100, 30) as terminal:
        before = modes(terminal)
        terminal.expect(rb"\x1b\[22;2t.*\x1b\[8;25;90t")  # the title is kept, the recorded size asked for
        terminal.expect(rb"hello world\r\n.*\x1b\]2;alice web  0:00  90x25\x1b\\")
        assert modes(terminal) != before
        terminal.type(b" ")
        terminal.expect(rb"paused")
        terminal.type(b"\x1b[C")
        terminal.expect(rb"0:0[5-9]")
        terminal.type(b".")
        terminal.expect(rb"later")
        terminal.type(b"n.\x1bOD")
        terminal.expect(rb"end.*\x1b\[2J.*hello world\r\nlater.*19:55")
        terminal.type(b"+q")
        assert terminal.wait() == 0
        assert terminal.seen.endswith(b"\x1b[0m\x1b[23;2t\r\n")
        assert b"evil" not in terminal.transcript
        assert modes(terminal) == before


def test_watching_a_session_live(folder: Path) -> None:
    path = folder / "abc-1.cast"
    with on_terminal(command(folder, "sessions", "watch", "abc"), 90, 25) as terminal:
        terminal.expect(rb"hello world\r\n.*end.*live")
        with path.open("ab") as file:
            file.write(encode_text(50, "o", "typed now")[:20])
            file.flush()
            file.write(encode_text(50, "o", "typed now")[20:])
            file.flush()
            terminal.expect(rb"typed now.*live")
            file.write(encode_text(51, "z", "0"))
        assert terminal.wait() == 0
        assert b"\x1b[8;" not in terminal.transcript  # it has that size


def test_following_a_session_from_its_beginning(folder: Path) -> None:
    with on_terminal(command(folder, "play", "-f", "abc")) as terminal:
        terminal.expect(rb"hello world\r\n.*end.*live")
        terminal.type(b"\x03")
        assert terminal.wait() == 130
