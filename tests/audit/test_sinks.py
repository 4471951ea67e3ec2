import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.chain import Chain
from bastion.audit.events import Entry, Event, entry
from bastion.audit.files import state_file
from bastion.audit.logfile import LogFile
from bastion.audit.signing import load
from bastion.audit.sinks import EventTable
from bastion.audit.tables import events
from tests.audit.sections import signing_key
from tests.audit.waiting import eventually


def made(number: int, padding: str = "") -> Entry:
    return entry(Event.CONFIG_RELOADED, "b", {"number": number, "padding": padding})


def log_file(path: Path) -> LogFile:
    key = load(signing_key())
    return LogFile(path, Chain("b", key, 10**9), key.public, None, True, lambda entries: None)


def numbers(path: Path) -> list[int | None]:
    """The number of each line; None for a line that was cut short."""
    found: list[int | None] = []
    for line in path.read_text().splitlines():
        try:
            fields = json.loads(line)
            found += [fields["number"]] if "number" in fields else []
        except ValueError:
            found.append(None)
    return found


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[LogFile]:
    sink = log_file(tmp_path / "log" / "audit.jsonl")
    await sink.open()
    yield sink
    await sink.close()


async def test_a_full_disk_never_glues_two_events_together(small_disk: Path) -> None:
    sink = log_file(small_disk / "audit.jsonl")
    await sink.open()
    (small_disk / "other").write_bytes(b"x" * 20_480)
    stored: list[int] = []
    with pytest.raises(OSError, match="No space left"):
        await _fill(sink, stored)
    assert numbers(sink.path) == [*stored, None]  # what was not stored is torn
    with pytest.raises(OSError, match="No space left"):
        await sink.write([made(1000)])
    (small_disk / "other").unlink()
    assert await sink.write([made(1001), made(1002)]) == 2
    assert numbers(sink.path) == [*stored, None, 1001, 1002]
    await sink.close()


async def _fill(sink: LogFile, stored: list[int]) -> None:
    for number in range(0, 10_000, 3):
        stored += range(number, number + await sink.write([made(number + i, "x" * 3000) for i in range(3)]))


async def test_each_cut_of_a_write(small_disk: Path) -> None:
    """However many bytes fit: whole lines are counted as stored, a torn one as not, and the next is a line."""
    for room in range(0, 12_288, 509):
        sink = log_file(small_disk / "audit.jsonl")
        await sink.open()
        stored = await sink.write([made(0)])
        # tmpfs gives whole pages: the end of the file's last page decides where the cut is
        await sink.write([made(1, "y" * (4096 * 2 - sink.path.stat().st_size % 4096 + room % 4096 - 500))])
        filler = small_disk / "other"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as output:
            while True:
                output.write(b"x" * 4096)
        before = numbers(sink.path)
        try:
            stored = await sink.write([made(10 + i, "z" * 700) for i in range(9)])
        except OSError:
            stored = 0
        assert stored < 9
        assert [n for n in numbers(sink.path) if n is not None] == [*before, *range(10, 10 + stored)]
        filler.unlink()
        assert await sink.write([made(99)]) == 1
        after = numbers(sink.path)
        assert after[-1] == 99
        assert [n for n in after if n is not None] == [*before, *range(10, 10 + stored), 99]
        assert after.count(None) <= 1
        await sink.close()
        sink.path.unlink()
        state_file(sink.path).unlink()


async def test_a_read_only_disk(small_disk: Path) -> None:
    sink = log_file(small_disk / "audit.jsonl")
    await sink.open()
    await sink.close()
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    sink = log_file(small_disk / "audit.jsonl")
    with pytest.raises(OSError, match="Read-only file system"):
        await sink.open()
    await sink.close()


async def test_the_file_is_for_the_bastion_only(file: LogFile) -> None:
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_line_that_a_crash_cut_short(file: LogFile) -> None:
    await file.write([made(1)])
    await file.close()
    with file.path.open("a") as torn:
        torn.write('{"num')
    sink = log_file(file.path)
    await sink.open()
    await sink.write([made(2)])
    await sink.close()
    assert numbers(file.path) == [1, None, 2]


async def test_a_file_that_was_moved_away_is_made_again(file: LogFile) -> None:
    await file.write([made(1)])
    file.path.rename(file.path.with_suffix(".1"))
    await file.write([made(2)])
    assert numbers(file.path) == [2]
    assert numbers(file.path.with_suffix(".1")) == [1]


async def test_a_folder_that_is_gone(file: LogFile) -> None:
    await file.write([made(1)])
    moved = file.path.parent.rename(file.path.parent.with_name("moved"))
    with pytest.raises(FileNotFoundError):
        await file.write([made(2)])
    moved.rename(file.path.parent)
    await file.write([made(3)])
    assert numbers(file.path) == [1, 3]


async def test_descriptors_are_given_back(tmp_path: Path) -> None:
    for _ in range(3):
        sink = log_file(tmp_path / "audit.jsonl")
        await sink.open()
        await sink.close()

    async def closed() -> bool:
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return tmp_path / "audit.jsonl" not in links

    await eventually(closed, "the file is closed")


async def test_events_are_in_the_table_once(database: AsyncEngine) -> None:
    """A connection that dies in a commit leaves open whether it happened, so the write is repeated."""
    batch = [made(1), made(2)]
    sink = EventTable(database)
    assert await sink.write(batch) == 2
    assert await sink.write([*batch, made(3)]) == 3
    async with database.connect() as connection:
        lines = (await connection.execute(select(events.c.entry).order_by(events.c.position))).scalars()
        assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]
