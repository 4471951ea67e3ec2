"""Recordings on the disk: without space for them nothing starts, and encrypted ones are nobody's without the key."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bastion.recording.chain import End
from bastion.recording.integrity import verify
from bastion.recording.sealing import generate
from tests.recordings import content
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import wait_until

BUSY = "alice+web.busy.1"


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_below_the_floor_no_session_starts_and_above_it_one_does(
    folder: Path, engine: Engine, small_disk: Path
) -> None:
    section = {"folder": str(small_disk / "recordings"), "min_free_bytes": 1 << 20}
    with serving(folder, engine.url, recording=section) as bastion:
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"
        filler = small_disk / "filler"
        filler.write_bytes(bytes(7 << 19))
        done = bastion.ssh(BUSY, "echo in")
        assert (done.stdout, done.returncode) == (b"", 1)
        assert b"Sessions can not be recorded at the moment, so none is started." in done.stderr
        assert "recording.min_free_bytes is 1048576 (ENOSPC)" in bastion.wait_for_event("recording.failed")["detail"]
        filler.unlink()
        assert bastion.ssh(BUSY, "echo in").stdout == b"in\n"


def test_an_encrypted_recording_from_end_to_end(folder: Path, engine: Engine) -> None:
    private, public = generate()
    (folder / "key").write_text(private)
    with serving(folder, engine.url, recording={"recipients": [public]}) as bastion:
        assert bastion.ssh(BUSY, "cat", stdin=b"the secret\n").stdout == b"the secret\n"
        (path,) = bastion.recordings()
        end = bastion.wait_for_event("session.end", session_id=path.stem)
        wait_until(lambda: not path.exists(), "it is compressed")
        assert b"secret" not in content(path)
        assert b"busy" not in content(path)
        assert verify(path, End(**end["recording"])).finding is None
        for words in (("play",), ("sessions", "export", "--raw")):
            without = look(bastion, *words, path.stem)
            assert (without.stdout, without.returncode) == (b"", 1)
            assert f"it takes the private key of {public}".encode() in without.stderr
            assert b"the secret" in look(bastion, *words, path.stem, "--identity", str(folder / "key")).stdout
        lines = look(bastion, "sessions", "export", "--raw", path.stem, "-i", str(folder / "key")).stdout.splitlines()
        assert json.loads(lines[0])["bastion"]["user"] == "alice"


def look(bastion: Bastion, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*BASTION, *words, "-c", f"{bastion.folder}/config.yaml"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
