"""A thousand random changes to what a bastion has left, its log, recordings and rows: each is found where it is."""

import itertools
import os
import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.files import files, lines_of, state_file
from bastion.audit.sessions import SessionRows
from bastion.cli.recordings_verified import Recordings
from bastion.config import Recording
from bastion.model import Stream
from bastion.recording.chain import End
from bastion.recording.files import open_lines, session_of
from bastion.recording.integrity import verify
from bastion.recording.sealing import generate
from bastion.recording.store import RecordingStore
from tests.audit import owner, tampering
from tests.audit.test_verify import lines_in, read, remembered
from tests.audit.trail import Trail, one_session
from tests.recording import tampering as of_recordings

OF_THE_LOG, OF_RECORDINGS, OF_ROWS = 400, 350, 250


async def record(folder: Path, name: str, recipients: tuple[str, ...]) -> End:
    """A recording of some blocks."""
    store, rng = RecordingStore(Recording(folder=folder, recipients=recipients)), random.Random(name)
    recorder = await store.open(name, user="alice", address="web.worker.1")
    for _ in range(800):
        text = "".join(rng.choices("abcdef \n", k=rng.randrange(1, 700)))
        await recorder.write([(Stream.OUTPUT, text.encode())])
    summary = await recorder.close(0)
    await store.close()
    assert summary.end is not None
    return summary.end


@pytest.fixture
async def trail(tmp_path: Path, database: AsyncEngine) -> Trail:
    """Three starts of a bastion with a rotation in each, and another bastion in the same database."""
    made, (_, public) = Trail(tmp_path, database), generate()
    for start in range(3):
        async with made.log() as log, SessionRows(database, "b1") as rows:
            for name, command in ((f"shell{start}", None), (f"exec{start}", "true")):
                end = await record(tmp_path / "recordings", name, (public,) if command else ())
                await one_session(log, rows, name, command, recorded=end)
                if not command:
                    made.file.rename(tmp_path / f"audit.jsonl.{3 - start}")
    async with made.log(bastion="b2") as log, SessionRows(database, "b2") as rows:
        await one_session(log, rows, "other", "true")
    return made


def verified(trail: Trail) -> list[str]:
    """What is wrong with the recordings."""
    config: Any = SimpleNamespace(recording=Recording(folder=trail.folder / "recordings"))  # all that is asked of it
    return Recordings(config).findings((line for path in files(trail.file) for line in lines_of(path)), complete=True)


async def test_a_thousand_random_changes_are_found_and_rightly_placed(trail: Trail, tmp_path: Path) -> None:
    rng = random.Random(4711)
    assert (read(trail.folder, remembered(trail.folder)).findings, verified(trail)) == ([], [])
    assert (await trail.compare()).findings == []
    done = change_the_log(trail, tmp_path / "changed", rng)
    done += change_recordings(trail, rng)
    done += await change_rows(trail, rng)
    assert done.total() == 1000
    assert min(done.values()) > 25, done


def change_the_log(trail: Trail, folder: Path, rng: random.Random) -> Counter[str]:
    original, known = lines_in(trail.folder), remembered(trail.folder)
    sizes = [len(list(lines_of(path))) for path in files(trail.file)]
    names = [path.name for path in files(trail.file)]
    folder.mkdir()
    shutil.copy(state_file(trail.file), folder)
    done: Counter[str] = Counter()
    while done.total() < OF_THE_LOG:
        change = tampering.KINDS[done.total() % len(tampering.KINDS)](rng, original)
        if change.lines == original:
            continue
        tampering.write_files(folder, change, sizes)
        report = read(folder, known, change.state)
        assert report.findings, f"{change.kind} at {change.first}: not found"
        found = report.findings[0]
        placed = f"{change.kind} at {change.first}: {found}, intact {report.intact}"
        done[f"log: {change.kind}"] += 1
        if [path.name for path in files(folder / "audit.jsonl")] != names:
            continue  # files are put in the order of their entries, of which many may have been moved to another
        assert report.intact < change.first <= found.last, placed
        if not change.hashed_anew:
            assert found.first <= change.first, placed
            # a whole beginning that is gone; a last line that no other vouches for
            many = change.kind in ("removed", "cut", "rolled back") or change.first in (1, len(original))
            assert many or found.last - found.first <= 1, placed
    return done


def change_recordings(trail: Trail, rng: random.Random) -> Counter[str]:
    kinds = [*of_recordings.KINDS, a_whole_one_removed, a_whole_one_added, two_exchanged]
    over = [entry for entry in trail.entries() if entry["event"] == "session.end"]
    ends = {entry["session_id"]: End(**entry["recording"]) for entry in over}
    paths = sorted((trail.folder / "recordings").rglob("*.cast*"))
    done: Counter[str] = Counter()
    while done.total() < OF_RECORDINGS:
        kind = kinds[done.total() % len(kinds)]
        path = rng.choice(paths)
        if kind in of_recordings.KINDS:
            a_change_in_one(path, ends[session_of(path)], kind, rng)
        else:
            kind(trail, rng, paths)
        done[f"recordings: {kind.__name__}"] += 1
    assert verified(trail) == []
    return done


def a_change_in_one(path: Path, end: End, kind: Any, rng: random.Random) -> None:
    """The lines that are named hold the first that was changed, and are a block or two."""
    was = path.read_bytes()
    with open_lines(path) as file:
        data = file.read().splitlines(keepends=True)
    block = max(
        behind - first for first, behind in itertools.pairwise([0, *of_recordings.chain_lines(data), len(data)])
    )
    changed, damages, first, last = kind(data, rng)
    packed = b"".join(changed)
    path.write_bytes(zstandard.ZstdCompressor().compress(packed) if path.suffix == ".zst" else packed)
    finding = verify(path, end).finding
    path.write_bytes(was)
    placed = f"{kind.__name__} in lines {first} to {last} of {path.name}: {finding}"
    assert finding is not None, placed
    assert finding.damage in damages, placed
    assert finding.first_line - 1 <= last, placed
    assert finding.last_line >= first, placed
    assert finding.last_line - finding.first_line <= 2 * block, placed


def a_whole_one_removed(trail: Trail, rng: random.Random, paths: list[Path]) -> None:
    path = rng.choice(paths)
    was = path.read_bytes()
    path.unlink()
    assert verified(trail) == [
        f"recording {session_of(path)}: removed: it is not there, and no recording.pruned says why"
    ]
    path.write_bytes(was)


def a_whole_one_added(trail: Trail, rng: random.Random, paths: list[Path]) -> None:
    path = rng.choice(paths)
    name = f"added{rng.randrange(10**6)}"
    added = path.with_name(name + path.name.removeprefix(session_of(path)))
    shutil.copy2(path, added)
    os.utime(added, (0, 0))
    assert verified(trail) == [f"recording {name}: added: no entry of the log has begun it"]
    added.unlink()


def two_exchanged(trail: Trail, rng: random.Random, paths: list[Path]) -> None:
    one, other = rng.sample(paths, 2)
    was = one.read_bytes(), other.read_bytes()
    one.write_bytes(was[1])
    other.write_bytes(was[0])
    found = verified(trail)
    assert {line.split(":")[0] for line in found} == {f"recording {session_of(path)}" for path in (one, other)}
    assert len(found) == 2
    one.write_bytes(was[0])
    other.write_bytes(was[1])


async def change_rows(trail: Trail, rng: random.Random) -> Counter[str]:
    done: Counter[str] = Counter()
    async with trail.engine.connect() as connection:
        rows = owner.Rows(connection)
        await rows.prepare()
        while done.total() < OF_ROWS:
            kind = owner.KINDS[done.total() % len(owner.KINDS)]
            expected = await kind(rng, rows)
            findings = [one for one in (await trail.compare()).findings if one.table == expected[1]]
            await rows.restore()
            assert findings, f"{kind.__name__}: {expected} was not found"
            first = findings[0]
            assert (first.what, first.table, first.row) == expected, kind.__name__
            done[f"rows: {kind.__name__}"] += 1
    assert (await trail.compare()).findings == []
    return done
