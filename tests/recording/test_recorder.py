"""Written ahead, in order, and nothing passed on that is not on file: on real files and a real full disk."""

import asyncio
import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.config import Recording
from bastion.errors import Reason, Refusal
from bastion.model import Chunk, Stream, Terminal
from bastion.recording.asciicast import Event, Reader
from bastion.recording.files import open_lines
from bastion.recording.recorder import Recorder
from bastion.recording.store import RecordingStore
from bastion.recording.tape import Tape
from bastion.recording.writers import SLOW
from tests.recordings import content

TERMINAL = Terminal("xterm", 80, 24)
OUT, IN, ERR = Stream.OUTPUT, Stream.INPUT, Stream.ERROR


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RecordingStore]:
    store = RecordingStore(Recording(folder=tmp_path, max_bytes=1000))
    yield store
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB, all of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "bastion-test", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def open_recorder(store: RecordingStore, session_id: str = "s1", *, terminal: bool = True) -> Recorder:
    return await store.open(session_id, user="alice", address="web.1", terminal=TERMINAL if terminal else None)


def events(recorder: Recorder) -> list[Event]:
    with open_lines(recorder.path) as file:
        reader = Reader(file)
        found = list(reader)
        assert reader.truncated is None
        return found


def bytes_of(recorder: Recorder, stream: Stream) -> bytes:
    return b"".join(event.data for event in events(recorder) if event.stream is stream)


async def test_what_write_returns_is_on_file(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    assert await recorder.write([(OUT, b"$ ")]) == [(OUT, b"$ ")]
    assert bytes_of(recorder, OUT) == b"$ "
    assert await recorder.write([(IN, b"l")]) == [(IN, b"l")]
    assert [(event.code, event.data) for event in events(recorder)][1:] == [("p", b"***")]
    await recorder.write([(OUT, b"l")])
    await recorder.write([(IN, b"\r")])
    assert bytes_of(recorder, IN) == b"l\r"
    await recorder.resize(132, 43)
    await recorder.close(3)
    assert [(event.code, event.data) for event in events(recorder)][-2:] == [("r", b"132x43"), ("z", b"3")]


async def test_a_split_character_is_held_back_on_a_terminal_until_it_is_whole(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    smiley = "😀".encode()
    assert await recorder.write([(OUT, b"a" + smiley[:3])]) == [(OUT, b"a")]
    assert recorder.holding
    assert await recorder.write([(OUT, smiley[3:] + b"b")]) == [(OUT, smiley + b"b")]
    assert not recorder.holding
    assert [event.data.decode() for event in events(recorder)] == ["a", "😀b"]
    await recorder.close(0)


async def test_flush_records_and_releases_what_is_held(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    assert await recorder.write([(OUT, b"\xe4\xb8")]) == []
    assert await recorder.flush() == [(OUT, b"\xe4\xb8")]
    assert not recorder.holding
    assert bytes_of(recorder, OUT) == b"\xe4\xb8"
    assert await recorder.flush() == []
    assert await recorder.write([(OUT, b"\xad")]) == [(OUT, b"\xad")]
    summary = await recorder.close(0)
    assert summary.streams["o"]["sha256"] == hashlib.sha256("中".encode()).hexdigest()


async def test_input_is_never_held_back(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    assert await recorder.write([(IN, b"\xe4\xb8")]) == [(IN, b"\xe4\xb8")]
    assert not recorder.holding
    assert await recorder.write([(IN, b"\xad")]) == [(IN, b"\xad")]
    await recorder.write([(OUT, "中".encode())])
    await recorder.close(0)
    assert bytes_of(recorder, IN) == "中".encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.sampled_from([OUT, IN, ERR]), st.binary(min_size=1, max_size=30)), max_size=15),
    limit=st.sampled_from([0, 7, 100, 10_000]),
    terminal=st.booleans(),
)
async def test_every_byte_passes_once_and_in_order(
    tmp_path: Path, chunks: list[Chunk], limit: int, terminal: bool
) -> None:
    if terminal:
        chunks = [chunk for chunk in chunks if chunk[0] is not ERR]
    store = RecordingStore(Recording(folder=tmp_path, max_bytes=limit))
    recorder = await open_recorder(store, f"s{time.monotonic_ns()}", terminal=terminal)
    passed = [chunk for written in chunks for chunk in await recorder.write([written])]
    assert terminal or passed == chunks
    passed += await recorder.flush()
    summary = await recorder.close(0)
    await store.close()
    for stream in Stream:
        sent = b"".join(data for which, data in chunks if which is stream)
        assert b"".join(data for which, data in passed if which is stream) == sent
        assert summary.streams[stream]["bytes"] == len(sent)
        if terminal and stream is IN:
            assert summary.streams[stream]["sha256"] is None
            continue
        assert summary.streams[stream]["sha256"] == hashlib.sha256(sent).hexdigest()
        assert bytes_of(recorder, stream) == sent[:limit]
        marks = [event for event in events(recorder) if event.code == "t" and event.data == stream.encode()]
        assert len(marks) == (len(sent) > limit)


async def test_binary_without_a_terminal_is_base64(store: RecordingStore) -> None:
    recorder = await open_recorder(store, terminal=False)
    data = bytes(range(256))
    assert await recorder.write([(OUT, data), (ERR, data), (IN, data)]) == [(OUT, data), (ERR, data), (IN, data)]
    await recorder.close(0)
    assert [event.code for event in events(recorder)] == ["ob", "eb", "ib", "z"]
    assert base64.b64encode(data) in content(recorder.path)


async def test_beyond_the_limit_a_password_stays_masked_and_echo_is_still_seen(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    await recorder.write([(OUT, b"x" * 5000)])
    await recorder.write([(IN, b"ls")])
    await recorder.write([(OUT, b"ls")])
    await recorder.write([(IN, b"\r")])
    await recorder.write([(OUT, b"\r\nPassword: ")])
    await recorder.write([(IN, b"hunter2\r")])
    await recorder.write([(OUT, b"\r\n")])
    await recorder.write([(IN, b"secret" + b"s" * 2000)])
    await recorder.close(0)
    assert bytes_of(recorder, IN) == b"ls\r\r"
    assert b"hunter" not in content(recorder.path)
    assert b"secret" not in content(recorder.path)


async def test_hash_of_a_typed_password_is_nowhere(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    await recorder.write([(IN, b"hunter2")])
    summary = await recorder.close(0)
    assert summary.streams["i"] == {"bytes": 7, "sha256": None}


async def test_many_writers_at_once_keep_each_ones_order(store: RecordingStore) -> None:
    recorders = [await open_recorder(store, f"s{number}", terminal=False) for number in range(12)]

    async def fill(recorder: Recorder) -> None:
        await asyncio.gather(*[recorder.write([(OUT, b"%d\n" % number)]) for number in range(200)])

    await asyncio.gather(*[fill(recorder) for recorder in recorders])
    for recorder in recorders:
        await recorder.close(0)
        assert bytes_of(recorder, OUT) == b"".join(b"%d\n" % number for number in range(200))[:1000]


async def test_a_cancelled_write_is_recorded_all_the_same_and_in_order(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    for number in range(100):
        recorder._writers.took(SLOW + 1)  # or it is done before it can be cancelled
        writing = recorder.write([(OUT, b"%02d " % number)])
        assert not writing.done()
        if number % 3:
            writing.cancel()
        await asyncio.sleep(0)
    await recorder.close(None)
    assert bytes_of(recorder, OUT) == b"".join(b"%02d " % number for number in range(100))


async def test_a_slow_disk_holds_the_event_loop_up_once(store: RecordingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, other = await open_recorder(store), await open_recorder(store, "s2")
    moves = threading.Event()
    append = Tape.append

    def slow(tape: Tape, lines: list[bytes]) -> None:  # no disk of ours can be made slow at will
        append(tape, lines)
        time.sleep(3 * SLOW)

    def stands(tape: Tape, lines: list[bytes]) -> None:
        assert moves.wait(30)
        append(tape, lines)

    assert recorder.write([(OUT, b"a")]).done()
    monkeypatch.setattr(Tape, "append", slow)
    assert recorder.write([(OUT, b"b")]).done()
    monkeypatch.setattr(Tape, "append", stands)
    late = [recorder.write([(OUT, b"c")]), recorder.write([(OUT, b"d")]), other.write([(OUT, b"x")])]
    assert not any(writing.done() for writing in late)
    moves.set()
    assert await asyncio.gather(*late) == [[(OUT, b"c")], [(OUT, b"d")], [(OUT, b"x")]]
    assert bytes_of(recorder, OUT) == b"abcd"
    async with asyncio.timeout(30):
        while not (writing := recorder.write([(OUT, b".")])).done():  # quick again, after a while
            await writing
    await recorder.close(0)
    await other.close(0)


async def test_close_again_gives_the_same_summary_and_nothing_can_be_written(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    assert await recorder.close(0) is await recorder.close(1)
    with pytest.raises(Refusal):
        await recorder.write([(OUT, b"x")])
    assert recorder.failure is None


async def test_writing_after_the_store_is_closed_is_refused(store: RecordingStore) -> None:
    recorder = await open_recorder(store)
    await store.close()
    with pytest.raises(Refusal, match="closed"):
        await recorder.write([(OUT, b"x")])
    os.close(recorder._tape.descriptor)


async def test_a_full_disk_ends_a_strict_session_and_leaves_whole_lines(small_disk: Path) -> None:
    store = RecordingStore(Recording(folder=small_disk, min_free_bytes=0))
    recorder = await open_recorder(store)
    passed = b""

    async def fill() -> None:
        nonlocal passed
        for number in range(1000):
            passed += (await recorder.write([(OUT, b"%05d" % number + b"x" * 5000)]))[0][1]

    with pytest.raises(Refusal) as refused:
        await fill()
    assert refused.value.reason is Reason.RECORDING_FAILED
    assert "No space left on device (ENOSPC)" in refused.value.log_text
    assert str(small_disk) not in refused.value.user_text
    assert bytes_of(recorder, OUT) == passed  # to the byte: nothing seen that is not recorded, nor the other way round
    assert len(passed) > 200_000
    with pytest.raises(Refusal):  # a few bytes would fit, but what was before them is missing
        await recorder.write([(OUT, b"tail")])
    assert bytes_of(recorder, OUT) == passed
    summary = await recorder.close(0)
    assert summary.failure == recorder.failure == "No space left on device (ENOSPC)"
    with pytest.raises(Refusal) as refused:
        await open_recorder(store, "s2")
    assert "ENOSPC" in refused.value.log_text
    assert refused.value.user_text.startswith("Sessions can not be recorded at the moment")
    with pytest.raises(Exception, match="no recording of a session s2"):
        store.find("s2")
    await store.close()


async def test_a_full_disk_stops_the_recording_not_a_best_effort_session(small_disk: Path) -> None:
    store = RecordingStore(Recording(folder=small_disk, mode="best_effort", min_free_bytes=0))
    recorder = await open_recorder(store)
    assert recorder.failure is None
    for number in range(100):
        chunk = (OUT, b"%05d" % number + b"x" * 5000)
        assert await recorder.write([chunk]) == [chunk]
    assert recorder.failure == "No space left on device (ENOSPC)"
    assert await recorder.write([(OUT, b"\xe4")]) + await recorder.flush() == [(OUT, b"\xe4")]
    await recorder.resize(1, 2)
    summary = await recorder.close(0)
    assert summary.failure == recorder.failure
    assert summary.streams["o"]["bytes"] == 100 * 5005 + 1
    assert bytes_of(recorder, OUT)
    unrecorded = await open_recorder(store, "s2")  # not even a header
    assert unrecorded.failure
    assert await unrecorded.write([(OUT, b"seen")]) == [(OUT, b"seen")]
    assert (await unrecorded.close(0)).failure == unrecorded.failure
    await store.close()


async def test_a_file_that_was_removed_is_a_failure(store: RecordingStore, tmp_path: Path) -> None:
    recorder = await open_recorder(store)
    await recorder.write([(OUT, b"x")])
    shutil.rmtree(tmp_path)
    with pytest.raises(Refusal, match="ENOENT"):
        await recorder.write([(OUT, b"y")])
    assert (await recorder.close(0)).failure


async def test_a_disk_that_became_read_only_is_a_failure(small_disk: Path) -> None:
    store = RecordingStore(Recording(folder=small_disk, min_free_bytes=0))
    await (await open_recorder(store, "s0")).close(0)
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(Refusal, match=r"Read-only file system \(EROFS\)"):
        await open_recorder(store)
    await store.close()


async def test_an_error_of_our_own_ends_a_best_effort_session_too(tmp_path: Path) -> None:
    store = RecordingStore(Recording(folder=tmp_path, mode="best_effort"))
    recorder = await open_recorder(store)
    with pytest.raises(Refusal):
        await recorder.write([(OUT, "no bytes")])  # type: ignore[list-item]  # the defect
    await recorder.close(0)
    await store.close()


VICTIM = """
import asyncio, sys
from pathlib import Path
from bastion.config import Recording
from bastion.model import Stream, Terminal
from bastion.recording.store import RecordingStore
from bastion.recording.tape import Tape
from bastion.recording.writers import SLOW

async def main():
    store = RecordingStore(Recording(folder=Path(sys.argv[1])))
    recorder = await store.open("victim", user="alice", address="web", terminal=Terminal("xterm", 80, 24))
    number = 0
    while True:
        number += 1
        for _, data in await recorder.write([(Stream.OUTPUT, b"%08d" % number)]):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

asyncio.run(main())
"""


def test_what_was_passed_on_survives_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        seen = victim.stdout.read(8 * 2000)
        victim.send_signal(signal.SIGKILL)
        seen += victim.stdout.read()
    path = RecordingStore(Recording(folder=tmp_path)).find("victim")
    with open_lines(path) as file:
        recorded = b"".join(event.data for event in Reader(file) if event.stream is OUT)
    assert recorded.startswith(seen)
    assert len(recorded) - len(seen) <= 8
