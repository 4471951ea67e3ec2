"""Real scriptreplay and asciinema read what is exported."""

import contextlib
import io
import os
import subprocess
from pathlib import Path

import pytest

from bastion.model import Stream
from bastion.recording.asciicast import Header, Reader, encode_binary, encode_header, encode_text, text_of
from bastion.recording.escapes import Filter
from bastion.recording.export import Unfiltered, write_asciicast, write_typescript
from tests.e2e.terminal import on_terminal

HEADER = Header("s", "ali\x1bce", "web.worker.1", 1795301441, 90, 25, terminal=True, env={"TERM": "xterm\n-256color"})
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[6n"
LINES = (
    encode_text(0.25, "o", "$ "),
    encode_text(0.5, "p", "***\r"),
    encode_text(0.5, "i", "ls\r"),
    encode_text(0.5, "o", text_of("ls\r\ngrün ".encode()) + HOSTILE + text_of(b"\xff\r\n")),
    encode_text(0.75, "r", "100x40"),
    encode_text(0.75, "r", "1x1\nO 0 0"),
    encode_text(1, "x", "***"),
    encode_binary(1, Stream.OUTPUT, b"\0\x80bin\r\n"),
    encode_text(1.25, "e", "stderr\r\n"),
    encode_text(1.25, "t", "o"),
    encode_text(1.5, "z", "0"),
)
SHOWN = "$ ls\r\ngrün \ufffd\r\n\ufffdbin\r\nstderr\r\n".encode()
RECORDED = b"$ ls\r\ngr\xc3\xbcn " + HOSTILE.encode() + b"\xff\r\n\0\x80bin\r\nstderr\r\n"


def reader() -> Reader:
    return Reader(io.BytesIO(encode_header(HEADER) + b"".join(LINES)))


def replayed(folder: Path, *options: str) -> bytes:
    command = ["scriptreplay", "--log-timing", "timing", "--log-out", "out", "--log-in", "typed", "--divisor", "100"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, check=True, timeout=30)
    assert done.stderr == b""
    return done.stdout


def typescript(folder: Path, *, raw: bool) -> Path:
    with contextlib.ExitStack() as files:
        out, typed, timing = (files.enter_context((folder / name).open("wb")) for name in ("out", "typed", "timing"))
        write_typescript(reader(), out, typed, timing, Unfiltered if raw else Filter)
    return folder


def test_scriptreplay_plays_it(tmp_path: Path) -> None:
    folder = typescript(tmp_path, raw=False)
    assert replayed(folder) == SHOWN + b"\n"  # its own
    assert replayed(folder, "--stream", "in", "--cr-mode", "never") == b"ls\r***\n"
    assert replayed(folder, "--stream", "signal") == b"SIGWINCH  ROWS=40 COLS=100\n\n"
    summary = replayed(folder, "--summary").decode()
    assert [line.split(":")[-1].strip() for line in summary.splitlines() if "TERM:" in line or "DURATION" in line] == [
        r"xterm\n-256color",
        "1.250000",
    ]
    old = subprocess.run(["scriptreplay", "timing", "out", "100"], cwd=folder, capture_output=True, check=True)
    assert old.stdout == SHOWN + b"\n"


def test_scriptreplay_plays_every_byte_where_that_is_asked_for(tmp_path: Path) -> None:
    assert replayed(typescript(tmp_path, raw=True)) == RECORDED + b"\n"


def test_asciinema_plays_it(tmp_path: Path) -> None:
    """The stored file can end it: it prints lone surrogates as they are."""
    path = tmp_path / "s.cast"
    with path.open("wb") as out:
        write_asciicast(reader(), out)
    env = {"HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    for command in (["asciinema", "cat", str(path)], ["asciinema", "play", "-s", "100", str(path)]):
        with on_terminal(command, env=env) as terminal:
            assert terminal.wait() == 0, terminal.transcript
            assert SHOWN in terminal.transcript


def test_an_asciicast_has_only_what_is_standard_and_harmless() -> None:
    out = io.BytesIO()
    write_asciicast(reader(), out)
    out.seek(0)
    exported = Reader(out)
    assert (exported.header.columns, exported.header.rows, exported.header.env) == (
        90,
        25,
        {"TERM": r"xterm\n-256color"},
    )
    events = list(exported)
    assert {event.code for event in events} == {"o", "i", "r"}
    assert b"".join(event.data for event in events if event.code == "o") == SHOWN
    assert [(event.time, event.data) for event in events if event.code != "o"] == [
        (0.5, b"ls\r"),
        (0.75, b"100x40"),
        (1.0, b"***"),
    ]
    assert b"\\ud" not in out.getvalue()
    assert b"\\u001b" not in out.getvalue()


@pytest.mark.parametrize("name", ["scriptreplay", "asciinema"])
def test_the_programs_are_the_real_ones(name: str) -> None:
    assert subprocess.run([name, "--version"], capture_output=True, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
