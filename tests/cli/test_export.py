"""`bastion sessions export ID`; what is in the files is shown in tests/recording/test_export.py."""

import asyncio
import stat
import subprocess
from pathlib import Path

import pytest

from bastion.audit.database import upgrade
from bastion.config import load_config
from bastion.recording.asciicast import Header, encode_header, encode_text
from tests.cli.conftest import Run

CAST = encode_header(Header("abc-1", "alice", "web", 0, terminal=True)) + encode_text(
    0, "o", "hi \x1b]0;t\x07\udcff\r\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    asyncio.run(upgrade(load_config(path).database))
    (tmp_path / "recordings/2024/01/02").mkdir(parents=True)
    (tmp_path / "recordings/2024/01/02/abc-1.cast").write_bytes(CAST)
    (tmp_path / "recordings/2024/01/02/cut.cast").write_bytes(CAST + b"[1")
    return path


def test_to_standard_output_without_harm_or_as_it_is(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "export", "abc", "-c", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [r'[0.000000, "o", "hi \ufffd\r\n"]']
    assert bastion("sessions", "export", "abc", "--raw", "-c", config).stdout.encode() == CAST


def test_into_files_that_are_new(bastion: Run, config: Path, tmp_path: Path) -> None:
    words = ("sessions", "export", "abc", "--format", "typescript", "-o", tmp_path / "ts", "-c", config)
    done = bastion(*words)
    assert done.returncode == 0, done.stderr
    for name in ("ts", "ts.typed", "ts.timing"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    played = subprocess.run(["scriptreplay", "ts.timing", "ts"], cwd=tmp_path, capture_output=True, check=True)
    assert played.stdout == "hi \ufffd\r\n\n".encode()
    again = bastion(*words)
    assert again.returncode == 1
    assert "ts can not be made: File exists" in again.stderr


def test_a_typescript_needs_a_place(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "export", "abc", "--format", "typescript", "-c", config)
    assert done.returncode == 2
    assert "a typescript is three files" in done.stderr


def test_what_is_cut_short_is_exported_and_said(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "export", "cut", "-c", config)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert "cut short" in done.stderr
