"""Where recordings are, who may read them, and how they are found."""

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Literal
from unittest import mock

import pytest

from bastion.config import Recording
from bastion.errors import Refusal
from bastion.model import Stream, Terminal
from bastion.recording.asciicast import Reader, RecordingError
from bastion.recording.files import compress, open_lines
from bastion.recording.integrity import verify
from bastion.recording.sealing import generate
from bastion.recording.store import RecordingStore
from tests.recordings import content

STARTED = datetime(2024, 2, 29, 23, 30, tzinfo=timezone(timedelta(hours=-2)))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RecordingStore]:
    store = RecordingStore(Recording(folder=tmp_path / "recordings"))
    yield store
    await store.close()


async def record(store: RecordingStore, session_id: str, started: datetime | None = STARTED) -> Path:
    recorder = await store.open(session_id, user="alice", address="web.worker.1", started=started, command="id")
    await recorder.close(0)
    return recorder.path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what other threads do has no event
            await asyncio.sleep(0.005)


async def test_folders_by_utc_date_and_nobody_else_may_read(store: RecordingStore, tmp_path: Path) -> None:
    path = await record(store, "abc-1")
    assert path == tmp_path / "recordings/2024/03/01/abc-1.cast"
    await until(lambda: not path.exists())
    assert path.with_name("abc-1.cast.zst").stat().st_mode & 0o777 == 0o600
    for folder in list(path.parents)[:4]:
        assert folder.stat().st_mode & 0o777 == 0o700, folder


async def test_header_is_written_at_once(store: RecordingStore) -> None:
    recorder = await store.open(
        "abc", user="alice", address="web.worker.1", started=STARTED, command="vi", env={"LANG": "C"},
        terminal=Terminal("xterm-256color", 132, 43),
    )  # fmt: skip
    with open_lines(recorder.path) as file:
        header = Reader(file).header
    assert (header.session_id, header.user, header.address, header.command) == ("abc", "alice", "web.worker.1", "vi")
    assert (header.columns, header.rows, header.terminal) == (132, 43, True)
    assert header.env == {"LANG": "C", "TERM": "xterm-256color"}
    assert header.timestamp == STARTED.timestamp()
    await recorder.close(0)


async def test_start_is_now_if_left_out(store: RecordingStore) -> None:
    path = await record(store, "abc", None)
    assert path.parent.name in {(datetime.now(UTC) - timedelta(minutes=m)).strftime("%d") for m in (0, 1)}


@pytest.mark.parametrize("session_id", ["", ".", "..", "../x", "a/b", "a\0b", "-x", "a\n", "a b", "é", "*", "x" * 200])
async def test_session_ids_that_are_no_safe_file_names_are_rejected(store: RecordingStore, session_id: str) -> None:
    with pytest.raises(ValueError, match="session id"):
        await record(store, session_id)
    with pytest.raises(RecordingError, match="session id"):
        store.find(session_id)


async def test_nothing_that_exists_is_overwritten_or_followed(store: RecordingStore, tmp_path: Path) -> None:
    path = await record(store, "abc")
    before = content(path)
    with pytest.raises(Refusal, match="EEXIST"):
        await record(store, "abc")
    assert content(path) == before
    elsewhere = tmp_path / "elsewhere"
    path.with_name("link.cast").symlink_to(elsewhere)
    with pytest.raises(Refusal, match="EEXIST"):
        await record(store, "link")
    assert not elsewhere.exists()
    elsewhere.mkdir()
    (tmp_path / "recordings/2024/04").symlink_to(elsewhere)
    with pytest.raises(Refusal):
        await record(store, "abc2", STARTED + timedelta(days=31))
    assert not list(elsewhere.iterdir())


async def test_found_by_id_or_unique_beginning(store: RecordingStore) -> None:
    one = await record(store, "abc-1")
    await record(store, "abc-12")
    other = await record(store, "xyz", STARTED + timedelta(days=1))
    assert store.find("abc-1") == one
    assert store.find("x") == other
    with pytest.raises(RecordingError, match="2 recordings fit abc…: abc-1, abc-12"):
        store.find("abc")
    with pytest.raises(RecordingError, match="no recording of a session q"):
        store.find("q")


async def test_one_that_is_compressed_meanwhile_is_there_all_the_same(tmp_path: Path) -> None:
    """Else the verification would say that somebody has removed it."""
    store = RecordingStore(Recording(folder=tmp_path / "recordings"))
    path = await record(store, "abc")
    await until(lambda: not path.exists())
    await store.close()
    path.write_bytes(content(path))
    path.with_name("abc.cast.zst").unlink()
    listed = store._section.folder.glob

    def glob(pattern: str) -> Iterator[Path]:
        found = list(listed(pattern))
        compress(path)
        return iter(found)

    folder = mock.Mock(glob=glob)  # the moment between two looks of one call can not be had otherwise
    store._section = store._section.model_construct(folder=folder)
    assert store.all() == [path]
    path.with_name("abc.cast.zst").unlink()
    assert store.all() == []


async def test_what_was_left_uncompressed_is_compressed_where_its_session_is_over(store: RecordingStore) -> None:
    paths = {name: await record(store, name) for name in ("ended", "runs", "elsewhere")}
    await until(lambda: not any(path.exists() for path in paths.values()))
    for path in paths.values():
        packed = path.with_name(f"{path.stem}.cast.zst")
        path.write_bytes(content(path))
        packed.rename(packed.with_name(packed.name + ".part"))  # a crash came before it was whole
    asked = []

    async def over(ids: Sequence[str]) -> list[str]:
        asked.extend(ids)
        return ["ended"]

    await store.compress_left(over)
    assert sorted(asked) == ["elsewhere", "ended", "runs"]
    await until(lambda: not paths["ended"].exists())
    assert {path.name for path in paths["ended"].parent.iterdir()} == {
        "ended.cast.zst", "runs.cast", "runs.cast.zst.part", "elsewhere.cast", "elsewhere.cast.zst.part",
    }  # fmt: skip


async def test_a_folder_that_is_gone_later_is_not_made_anew(store: RecordingStore, tmp_path: Path) -> None:
    await record(store, "abc")
    (tmp_path / "recordings").rename(tmp_path / "moved")
    with pytest.raises(Refusal, match="ENOENT"):
        await record(store, "def")
    assert not (tmp_path / "recordings").exists()
    (tmp_path / "moved").rename(tmp_path / "recordings")
    await record(store, "def")


async def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recordings").touch()
    store = RecordingStore(Recording(folder=tmp_path / "recordings"))
    with pytest.raises(Refusal, match=r"EEXIST|ENOTDIR"):
        await record(store, "abc")
    await store.close()


async def test_a_cancelled_open_leaves_nothing_open(store: RecordingStore) -> None:
    await record(store, "first")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        opening = asyncio.create_task(record(store, f"s{number}"))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    await record(store, "last")
    await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)


async def test_close_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = RecordingStore(Recording(folder=tmp_path))
    await record(store, "abc")
    assert set(threading.enumerate()) - before
    await store.close()
    await store.close()
    await until(lambda: set(threading.enumerate()) <= before)
    with pytest.raises(Refusal):
        await record(store, "def")


async def test_a_recording_is_compressed_when_it_has_ended(store: RecordingStore) -> None:
    recorder = await store.open("abc-1", user="alice", address="web.worker.1")
    await recorder.write([(Stream.OUTPUT, b"the same again\n" * 4000)])
    with open_lines(recorder.path) as before:
        summary = await recorder.close(0)
        packed = recorder.path.with_name("abc-1.cast.zst")
        await until(lambda: not recorder.path.exists())
        assert packed.stat().st_size < 2000
        lines = before.read()  # who reads it meanwhile is not disturbed
    assert content(recorder.path) == lines
    unpacked = await asyncio.to_thread(subprocess.run, ["zstd", "-dcq", packed], capture_output=True, check=True)
    assert unpacked.stdout == lines
    assert summary.end == verify(recorder.path, None).end
    assert verify(recorder.path, summary.end) == verify(recorder.path, None)
    assert store.find("abc") == recorder.path
    await store.close()
    assert [path.name for path in packed.parent.iterdir()] == ["abc-1.cast.zst"]


async def test_compressing_after_a_crash_in_the_middle_of_it(store: RecordingStore) -> None:
    path = await record(store, "abc-1")
    await until(lambda: not path.exists())
    path.write_bytes(content(path))
    path.with_name("abc-1.cast.zst.part").write_bytes(b"torn")
    assert store.find("abc") == path
    compress(path)
    assert [file.name for file in path.parent.iterdir()] == ["abc-1.cast.zst"]


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
async def test_without_free_space_nothing_starts(tmp_path: Path, mode: Literal["strict", "best_effort"]) -> None:
    store = RecordingStore(Recording(folder=tmp_path / "r", min_free_bytes=1 << 60, mode=mode))
    if mode == "strict":
        with pytest.raises(
            Refusal, match=r"bytes are free, recording.min_free_bytes is 1152921504606846976 \(ENOSPC\)"
        ):
            await record(store, "abc-1")
    else:
        recorder = await store.open("abc-1", user="alice", address="web.worker.1")
        assert "min_free_bytes" in (recorder.failure or "")
        assert (await recorder.close()).end is None
    assert not list((tmp_path / "r").rglob("*.cast"))
    await store.close()


async def test_an_encrypted_recording_takes_the_private_key_and_its_chain_none(tmp_path: Path) -> None:
    pairs = [generate(), generate()]
    store = RecordingStore(Recording(folder=tmp_path, recipients=tuple(public for _, public in pairs)))
    terminal = Terminal("xterm", 90, 25)
    recorder = await store.open("abc-1", user="alice", address="web.1", command="cat secret", terminal=terminal)
    await recorder.write([(Stream.OUTPUT, b"the secret\r\n" * 100)])
    growing = recorder.path.read_bytes()
    with open_lines(recorder.path) as file:
        reader = Reader(file, [pairs[1][0]])
        assert (reader.header.user, reader.header.command, reader.header.columns) == ("alice", "cat secret", 90)
        assert [event.data for event in reader] == [b"the secret\r\n" * 100]
        summary = await recorder.close(0)
        assert [event.code for event in reader] == ["z"]
    for private, _ in pairs:
        with open_lines(recorder.path) as file:
            assert [event.code for event in Reader(file, [private])] == ["o", "z"]
    stored = content(recorder.path)
    assert stored.startswith(growing)
    assert b"secret" not in stored
    assert b"alice" not in stored
    assert len(stored) < 3000
    verdict = verify(recorder.path, summary.end)
    assert (verdict.ended, verdict.finding) == (True, None)
    await store.close()


async def test_a_session_that_a_crash_cut_off(store: RecordingStore) -> None:
    path = await record(store, "abc-1")
    await until(lambda: not path.exists())
    torn = path.with_name("lost.cast")
    torn.write_bytes(content(path).replace(b"abc-1", b"lost")[:-5])
    verdict = await store.close_lost("lost")
    assert verdict is not None
    assert (verdict.end.bytes, verdict.ended, verdict.finding) == (len(content(torn)), False, None)
    await until(lambda: not torn.exists())
    assert verify(torn, verdict.end) == verdict
    assert await store.close_lost("never") is None
