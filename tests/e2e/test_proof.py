"""The whole trail: sessions in front of a stock ssh, their recordings and the log, verified, touched and pruned."""

import subprocess
from pathlib import Path

import zstandard

from tests.e2e.conftest import Start
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import wait_until


def run(bastion: Bastion, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*BASTION, *words, "-c", str(bastion.folder / "config.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def recordings(bastion: Bastion) -> dict[str, Path]:
    return {path.name.partition(".")[0]: path for path in (bastion.folder / "recordings").rglob("*.cast.zst")}


def change(path: Path) -> None:
    """A byte of what was shown, as whoever owns the file would."""
    plain = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    path.write_bytes(zstandard.ZstdCompressor().compress(plain.replace(b"all is well", b"all is Well")))


def test_recordings_are_held_against_the_log_and_what_is_pruned_still_verifies(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url) as bastion:
        for _ in range(4):
            assert bastion.ssh("alice+web.busy.1", "echo all is well").returncode == 0
        wait_until(lambda: len(recordings(bastion)) == 4, "the recordings are compressed", 20)
        ids = [event["session_id"] for event in bastion.events("session.end")]

        good = run(bastion, "audit", "verify", "--recordings")
        assert good.returncode == 0, good.stdout + good.stderr
        assert "4 recordings are as they were written, 0 were pruned" in good.stdout

        change(recordings(bastion)[ids[0]])
        recordings(bastion)[ids[1]].unlink()
        touched = run(bastion, "audit", "verify", "--recordings")
        assert touched.returncode == 1
        assert f"recording {ids[0]}: changed in lines " in touched.stdout
        assert f"recording {ids[1]}: removed: it is not there, and no recording.pruned says why" in touched.stdout
        assert "2 recordings are as they were written" in touched.stdout

        would = run(bastion, "sessions", "prune", "--older-than", "0s", "--dry-run")
        assert f"{ids[2]} would be removed" in would.stdout
        assert len(recordings(bastion)) == 3
        nothing = run(bastion, "sessions", "prune", "--older-than", "90d")
        assert (nothing.stdout, nothing.returncode) == ("", 0)
        pruned = run(bastion, "sessions", "prune", "--older-than", "0s")
        assert f"{ids[3]} is removed" in pruned.stdout
        assert f"{ids[0]} stays: changed in lines " in pruned.stderr, "what proves something is not removed"
        assert pruned.returncode == 1
        ends = {event["session_id"]: event["recording"] for event in bastion.events("session.end")}
        tombstones = {event["session_id"]: event["recording"] for event in bastion.events("recording.pruned")}
        assert tombstones == {session_id: ends[session_id] for session_id in ids[2:]}
        assert recordings(bastion).keys() == {ids[0]}

        after = run(bastion, "audit", "verify", "--recordings")
        assert ids[2] not in after.stdout, "what was pruned is not missed"
        assert "0 recordings are as they were written, 2 were pruned" in after.stdout


def test_a_session_that_runs_is_not_pruned(folder: Path, engine: Engine, start: Start) -> None:
    with serving(folder, engine.url) as bastion:
        start(bastion.ssh_command("alice+web.busy.1", "echo all is well; sleep 1000"))
        bastion.wait_for_event("session.start")
        done = run(bastion, "sessions", "prune", "--older-than", "0s")
        assert (done.stdout, done.returncode) == ("", 0)
        assert len(list((folder / "recordings").rglob("*.cast"))) == 1


def test_what_a_shutdown_left_uncompressed_is_compressed_or_pruned(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url) as bastion:
        for _ in range(2):
            assert bastion.ssh("alice+web.busy.1", "echo all is well").returncode == 0
        wait_until(lambda: len(recordings(bastion)) == 2, "the recordings are compressed", 20)
    left = [unpack(path) for path in recordings(bastion).values()]
    verified = run(bastion, "audit", "verify", "--recordings")
    assert "2 recordings are as they were written, 0 were pruned" in verified.stdout
    with serving(folder, engine.url) as bastion:
        wait_until(lambda: len(recordings(bastion)) == 2, "the next start compresses them", 20)
        wait_until(lambda: not any(path.exists() for path in left), "once each", 20)
    left = [unpack(path) for path in recordings(bastion).values()]
    left[0].with_name(left[0].name + ".zst.part").write_bytes(b"a crash cut it short")
    pruned = run(bastion, "sessions", "prune", "--older-than", "0s")
    assert (len(pruned.stdout.splitlines()), pruned.returncode) == (2, 0)
    assert list((folder / "recordings").iterdir()) == []
    verified = run(bastion, "audit", "verify", "--recordings")
    assert "0 recordings are as they were written, 2 were pruned" in verified.stdout


def unpack(path: Path) -> Path:
    """As it was before it was compressed."""
    left = path.with_suffix("")
    left.write_bytes(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    path.unlink()
    return left
