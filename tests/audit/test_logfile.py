import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.audit.files import State, anchored, files, in_order, lines_of, state_file
from bastion.audit.log import AuditLog
from bastion.audit.signing import load
from bastion.audit.verify import Report, What, verify
from bastion.config import Database
from bastion.errors import ConfigError, Unavailable
from tests.audit.sections import audit, signing_key
from tests.audit.waiting import eventually
from tests.servers.process import wait_until

KEY = load(signing_key()).public


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    config = Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/bastion.db"))
    await upgrade(config)
    made = create_engine(config)
    yield made
    await made.dispose()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log" / "audit.jsonl"


async def write(file: Path, engine: AsyncEngine, *numbers: int, **options: object) -> None:
    async with AuditLog(audit(file, **options), "b1", engine, file.parent) as log:
        for number in numbers:
            await log.emit(Event.CONFIG_RELOADED, number=number)


def read(file: Path) -> Report:
    tip = State(state_file(file)).read()
    assert tip is not None
    return verify((line for path in files(file) for line in lines_of(path)), KEY, {tip.seq: (tip.hash, "state")})


def numbers(file: Path) -> list[int]:
    lines = [json.loads(line.raw) for path in files(file) for line in lines_of(path) if line.raw.endswith(b"}")]
    return [line["number"] for line in lines if "number" in line]


def independent(*paths: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("independent.py")
    command = [sys.executable, str(script), KEY.line, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_independent_verifier_is_short_and_imports_nothing_of_ours() -> None:
    text = Path(__file__).with_name("independent.py").read_text()
    assert len(text.splitlines()) < 100
    assert "import bastion" not in text
    assert "from bastion" not in text


async def test_the_chain_goes_on_over_restarts_crashes_and_rotated_files(file: Path, engine: AsyncEngine) -> None:
    await write(file, engine, 1, 2)
    with file.open("ab") as torn:
        torn.write(b'{"time": "2026-')  # a crash in the middle of a write
    await write(file, engine, 3)
    file.rename(file.with_name("audit.jsonl.1"))
    (file.parent / "audit.jsonl.2.gz").write_bytes(gzip.compress((file.parent / "audit.jsonl.1").read_bytes()))
    (file.parent / "audit.jsonl.1").unlink()
    await write(file, engine, 4)  # found by the state, and by the compressed file
    report = read(file)
    assert report.findings == []
    assert numbers(file) == [1, 2, 3, 4]
    assert report.signed == report.tip.seq
    torn_line = gzip.decompress((file.parent / "audit.jsonl.2.gz").read_bytes()).splitlines()
    assert [line for line in torn_line if line.endswith(b"#")] == [b'{"time": "2026-#']
    done = independent(*reversed(files(file)))
    assert (done.returncode, done.stdout) == (0, "as it was written\n"), done.stderr
    changed = file.read_bytes().replace(b'"number": 4', b'"number": 5')
    file.write_bytes(changed)
    assert independent(*files(file)).returncode == 1


async def test_a_torn_line_is_vouched_for(file: Path, engine: AsyncEngine) -> None:
    await write(file, engine, 1)
    with file.open("ab") as torn:
        torn.write(b"half a line")
    await write(file, engine, 2)
    whole = file.read_bytes()
    for changed in (whole.replace(b"half a", b"half b"), whole.replace(b"half a line#\n", b"")):
        file.write_bytes(changed)
        assert read(file).findings != []
        assert independent(file).returncode == 1
    file.write_bytes(whole)
    assert read(file).findings == []


async def test_rotation_while_it_is_open(file: Path, engine: AsyncEngine) -> None:
    async with AuditLog(audit(file), "b1", engine, file.parent) as log:
        await log.emit(Event.CONFIG_RELOADED, number=1)
        file.rename(file.with_name("audit.jsonl.1"))
        await log.emit(Event.CONFIG_RELOADED, number=2)
    assert numbers(file) == [1, 2]
    begins = json.loads(file.read_text().splitlines()[0])
    assert (begins["event"], begins["begins"], begins["findings"]) == ("audit.verified", True, [])
    assert read(file).findings == []


@pytest.mark.parametrize("what", ["cut", "appended", "deleted", "changed"])
async def test_a_log_that_is_touched_while_it_is_open(
    file: Path, engine: AsyncEngine, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with AuditLog(audit(file), "b1", engine, file.parent) as log:
        await log.emit(Event.CONFIG_RELOADED, number=1)
        if what == "cut":
            os.truncate(file, file.stat().st_size - 10)
        elif what == "appended":
            file.write_bytes(file.read_bytes() + b"{}\n")
        elif what == "deleted":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes().replace(b'"number": 1', b'"number": 2'))
            file.rename(file.with_name("audit.jsonl.1"))
        for _ in range(2):
            with pytest.raises(Unavailable, match="the audit log was touched"):
                await log.emit(Event.CONFIG_RELOADED, number=2)
    assert 2 not in numbers(file) or what == "changed"
    assert "the audit log was touched" in caplog.text


async def test_over_a_log_that_was_touched_it_goes_on_only_when_best_effort(file: Path, engine: AsyncEngine) -> None:
    await write(file, engine, 1, 2, 3)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(ConfigError, match=r"audit\.jsonl:4: entries 5 to 6: cut short: .*audit\.jsonl\.state"):
        await write(file, engine, 4)
    await write(file, engine, 4, mode="best_effort")
    report = read(file)
    assert [(finding.what, finding.first, finding.last) for finding in report.findings] == [(What.REMOVED, 5, 6)]
    assert numbers(file) == [1, 2, 4]


async def test_a_log_that_was_rolled_back_is_seen_by_the_anchor(file: Path, engine: AsyncEngine) -> None:
    """Together with what remembers its end."""
    anchor = file.parent.parent / "anchor"
    await write(file, engine, 1, anchor=anchor)
    older = {path: path.read_bytes() for path in (file, state_file(file))}
    await write(file, engine, 2, anchor=anchor)
    await write(file, engine, 3)  # no head in the anchor
    assert len(anchored(anchor, KEY)) == 4
    for path, data in older.items():
        path.write_bytes(data)
    await write(file, engine)  # nothing to be seen without it
    for path, data in older.items():
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"entries 5 to 8: rolled back: missing at the end; .*anchor:4 has them"):
        await write(file, engine, anchor=anchor)


async def test_a_file_that_is_gone_is_missed_unless_it_was_rotated(file: Path, engine: AsyncEngine) -> None:
    await write(file, engine, 1)
    moved = file.rename(file.parent.parent / "elsewhere")
    with pytest.raises(ConfigError, match="neither here nor beside"):
        await write(file, engine, 2)
    moved.rename(file.with_name("audit.jsonl-20261125"))
    await write(file, engine, 2)
    assert numbers(file) == [1, 2]
    assert read(file).findings == []


async def test_one_process_at_a_time(file: Path, engine: AsyncEngine) -> None:
    async with AuditLog(audit(file), "b1", engine, file.parent):
        with pytest.raises(ConfigError, match=r"audit\.jsonl\.state is locked"):
            await write(file, engine)
    await write(file, engine)


async def test_a_key_that_is_lost_stops_the_start(file: Path, engine: AsyncEngine, tmp_path: Path) -> None:
    key = tmp_path / "keys" / "audit_key"
    options = {"signing_key": key}
    async with AuditLog(audit(file).model_copy(update=options), "b1", engine, file.parent):
        assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(ConfigError, match=r"audit\.signing_key: .* does not exist; make it with: bastion keys init"):
        async with AuditLog(audit(file).model_copy(update=options), "b1", engine, file.parent):
            pass


async def test_heads_are_signed_in_time(file: Path, engine: AsyncEngine) -> None:
    """Every so many events, every so many seconds, and not where nothing is new."""

    async def heads(count: int) -> bool:
        return file.read_text().count('"audit.head"') == count

    async with AuditLog(audit(file, head_events=5, head_interval=0.2), "b1", engine, file.parent) as log:
        await asyncio.gather(*(log.emit(Event.CONFIG_RELOADED, number=number) for number in range(5)))
        assert await heads(2)
        await log.emit(Event.CONFIG_RELOADED, number=5)
        await eventually(lambda: heads(3), "the time has come")
        await asyncio.sleep(0.5)  # nothing happens for some intervals
        assert await heads(3)


async def test_one_fsync_serves_all_that_came_meanwhile(
    file: Path, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    async with AuditLog(audit(file), "b1", engine, file.parent) as log:
        synced.clear()
        await asyncio.gather(*(log.emit(Event.CONFIG_RELOADED, number=number) for number in range(100)))
        assert 1 <= len(synced) <= 3


async def test_a_commit_is_late_by_what_is_configured_and_serves_all_that_came_by_then(
    file: Path, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    async with AuditLog(audit(file, commit_delay=0.05), "b1", engine, file.parent) as log:
        synced.clear()
        began = asyncio.get_running_loop().time()
        emitted = []
        for number in range(4):  # each when those before could have been written
            emitted.append(asyncio.create_task(log.emit(Event.CONFIG_RELOADED, number=number)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*emitted)
        assert 0.05 <= asyncio.get_running_loop().time() - began < 1
        assert len(synced) == 1
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.05"):
        audit(file, commit_delay=0.06)


async def test_what_is_not_on_the_disk_is_not_acknowledged(
    file: Path, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AuditLog(audit(file), "b1", engine, file.parent) as log:

        def fails(_descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fails)
            with pytest.raises(Unavailable, match="Input/output error"):
                await log.emit(Event.CONFIG_RELOADED, number=1)
        await log.emit(Event.CONFIG_RELOADED, number=2)
    assert numbers(file) == [2]
    assert read(file).findings == []


KILLED = """
import asyncio, sys
from pathlib import Path
from bastion.audit.database import create_engine
from bastion.audit.events import Event
from bastion.audit.log import AuditLog
from bastion.config import Audit, Database

async def main(folder, key):
    engine = create_engine(Database(url=f"sqlite+aiosqlite:///{folder}/bastion.db"))
    config = Audit(file=Path(folder, "log", "audit.jsonl"), signing_key=Path(key), head_events=7)
    async with AuditLog(config, "b1", engine, Path(folder)) as log:
        async def flood(start):
            for number in range(start, 10**9, 10):
                await log.emit(Event.CONFIG_RELOADED, number=number)
                print(number, flush=True)
        await asyncio.gather(*(flood(start) for start in range(10)))

asyncio.run(main(*sys.argv[1:]))
"""


def test_kill_9_again_and_again_is_never_called_tampering(tmp_path: Path) -> None:
    """What was acknowledged is there, and the chain goes on."""
    file, rng = tmp_path / "log" / "audit.jsonl", random.Random(5)
    asyncio.run(upgrade(Database(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/bastion.db"))))
    acknowledged: set[int] = set()
    for _ in range(6):
        acknowledged |= flood_until_killed(tmp_path, rng.randrange(20, 400))
        assert acknowledged <= set(numbers(file))
        assert read(file).findings == []
    assert independent(file).returncode == 0


def flood_until_killed(folder: Path, wanted: int) -> set[int]:
    output = folder / "output"
    with output.open("wb") as out:
        command = [sys.executable, "-c", KILLED, str(folder), str(signing_key())]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: output.read_text().count("\n") > wanted or process.poll() is not None, "it writes")
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL, errors
    return {int(line) for line in output.read_text().split("\n")[:-1]}


def test_files_are_read_in_any_order(tmp_path: Path) -> None:
    for name, seqs in (("a", [7, 8]), ("b", [1, 2, 3]), ("c", [4, 5, 6])):
        (tmp_path / name).write_text("".join(f'{{"seq": {seq}, "prev": "x"}}\n' for seq in seqs))
    (tmp_path / "d").write_text("nothing of a log\n")
    assert [path.name for path in in_order(tmp_path.iterdir())] == ["b", "c", "a"]
