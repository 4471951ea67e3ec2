"""`bastion play ID`, as a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bastion.recording.asciicast import Header, encode_header, encode_text

RUN = "import typer; from bastion.cli.play import play; from bastion.errors import BastionError\n"
RUN += "try: typer.run(play)\nexcept BastionError as error: raise SystemExit(str(error))"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    config = tmp_path / "config.yaml"
    config.write_text("auth:\n  local: {}\nrecording:\n  folder: recordings\n")
    folder = tmp_path / "recordings/2024/01/02"
    folder.mkdir(parents=True)
    header = encode_header(Header("abc-1", "alice", "web", 0, terminal=True))
    shown = encode_text(0, "o", "hello \x1b]0;title\x07world\r\n")
    (folder / "abc-1.cast").write_bytes(header + shown + encode_text(0.1, "o", "end"))
    (folder / "slow.cast").write_bytes(header + shown + encode_text(600, "o", "end"))
    (folder / "cut.cast").write_bytes(header + shown + b'[1.0, "o", "en')
    return [sys.executable, "-c", RUN, "-c", str(config)]


def test_plays_by_the_beginning_of_the_id(command: list[str]) -> None:
    done = subprocess.run([*command, "--speed", "100", "abc"], capture_output=True, check=True)
    assert done.stdout.startswith(b"hello world\r\nend")
    assert done.stderr == b""


def test_idle_limit(command: list[str]) -> None:
    done = subprocess.run([*command, "--idle-limit", "0", "slow"], capture_output=True, check=True, timeout=60)
    assert b"end" in done.stdout


def test_what_is_not_there_is_a_sentence(command: list[str]) -> None:
    done = subprocess.run([*command, "nothing"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"no recording of a session nothing" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_recording_cut_short_says_so(command: list[str]) -> None:
    done = subprocess.run([*command, "cut"], capture_output=True, check=True)
    assert done.stdout.startswith(b"hello world")
    assert b"cut short" in done.stderr


def test_interrupt_resets_the_terminal(command: list[str]) -> None:
    with subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        assert player.stdout is not None
        assert player.stderr is not None
        assert player.stdout.readline() == b"hello world\r\n"
        player.send_signal(signal.SIGINT)
        assert player.stdout.read().endswith(b"\x1b[0m")
        assert b"Traceback" not in player.stderr.read()
    assert player.returncode == 130


def test_a_reader_that_goes_away(command: list[str]) -> None:
    with subprocess.Popen(
        [*command, "--speed", "0.1", "abc"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as player:
        assert player.stdout is not None
        assert player.stderr is not None
        player.stdout.readline()
        player.stdout.close()
        assert player.stderr.read() == b""
    assert player.returncode == 141


@pytest.mark.parametrize("option", [("--speed", "0"), ("--speed", "-1"), ("--idle-limit", "-1")])
def test_impossible_options(command: list[str], option: tuple[str, str]) -> None:
    assert subprocess.run([*command, *option, "abc"], capture_output=True, check=False).returncode == 2
