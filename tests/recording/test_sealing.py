"""Encrypted recordings: what a key opens, what a crash leaves, what was tampered with."""

import io
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.recording.asciicast import (
    Header,
    Reader,
    RecordingError,
    encode_header,
    encode_sealed_header,
    encode_text,
)
from bastion.recording.sealing import Sealer, SealingError, Unsealer, generate, read_identities

PRIVATE, PUBLIC = generate()
HEADER = Header("s", "alice", "web.worker.1", 0, command="id", terminal=True)


def sealed(*appends: bytes) -> list[bytes]:
    sealer = Sealer([PUBLIC])
    first = [encode_sealed_header(HEADER, sealer.header), sealer.seal(encode_header(HEADER))]
    return [*first, *map(sealer.seal, appends), sealer.end()]


APPENDS = [encode_text(n, "o", f"line {n}\r\n") + encode_text(n, "i", "x") for n in range(20)]


def read(lines: list[bytes], *identities: str) -> list[bytes]:
    reader = Reader(io.BytesIO(b"".join(lines)), identities or [PRIVATE])
    assert reader.header == HEADER
    found = []
    while (line := reader.read_line()) is not None:
        found.append(line)
    return found


def test_what_was_sealed_comes_back() -> None:
    assert b"".join(read(sealed(*APPENDS))) == b"".join(APPENDS)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_every_append_can_be_read_at_once_whatever_it_is(appends: list[bytes]) -> None:
    sealer = Sealer([PUBLIC])
    unsealer = Unsealer(sealer.header, [PRIVATE])
    for data in appends:
        line = sealer.seal(data)
        assert unsealer.unseal(line.decode().split('"')[3]) == data


def test_a_crash_costs_no_more_than_the_append_that_it_cut() -> None:
    lines = sealed(*APPENDS)
    whole = b"".join(lines[:8])
    for cut in (1, 10, len(lines[8]) - 1):
        reader = Reader(io.BytesIO(whole + lines[8][:cut]), [PRIVATE])
        assert len(list(reader)) == 2 * 6
        assert reader.truncated is not None
    with pytest.raises(RecordingError, match="header is cut short"):
        Reader(io.BytesIO(lines[0] + lines[1][:-1]), [PRIVATE])


def test_without_the_key_nothing_opens_it() -> None:
    lines = sealed(*APPENDS)
    assert not any(word in b"".join(lines) for word in (b"alice", b"web.worker", b"line"))
    with pytest.raises(SealingError, match=rf"it takes the private key of {PUBLIC}$"):
        Reader(io.BytesIO(b"".join(lines)))
    with pytest.raises(SealingError, match=rf"encrypted to {PUBLIC}; this is another key$"):
        read(lines, generate()[0])


@pytest.mark.parametrize("change", ["swap", "remove", "flip", "of another recording"])
def test_what_was_tampered_with_is_not_shown(change: str) -> None:
    lines = sealed(*APPENDS)
    if change == "swap":
        lines[4], lines[5] = lines[5], lines[4]
    elif change == "remove":
        del lines[4]
    elif change == "flip":
        lines[4] = lines[4].replace(lines[4][20:21], b"A" if lines[4][20:21] != b"A" else b"B", 1)
    else:
        lines[4] = sealed(*APPENDS)[4]
    with pytest.raises(RecordingError, match=r"^line 5: "):
        read(lines)


@pytest.mark.parametrize("part", ['{"recipients": 1}', '{"recipients": [], "key": "!"}', "7", "[]", '{"key": "AA=="}'])
def test_a_header_that_says_nonsense_is_an_error(part: str) -> None:
    header = encode_sealed_header(HEADER, {}).replace(b"{}", part.encode())
    with pytest.raises(SealingError):
        Reader(io.BytesIO(header), [PRIVATE])


def test_private_keys_in_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"# created: today\n\n{PRIVATE}\n")
    assert read_identities(path) == [PRIVATE]
    for text in ("", "# nothing\n", f"{PUBLIC}\n", "\x1b]0;x\x07"):
        path.write_text(text)
        with pytest.raises(SealingError, match=r"key: one private key a line, AGE-SECRET-KEY-1\.\.\., is right"):
            read_identities(path)
    with pytest.raises(SealingError, match="No such file"):
        read_identities(tmp_path / "none")


def test_the_command_that_makes_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "recordings.key"
    command = [sys.executable, "-m", "bastion", "keys", "recordings", str(path)]
    public = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Unsealer(Sealer([public]).header, read_identities(path))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "recordings.key can not be made: File exists" in again.stderr
