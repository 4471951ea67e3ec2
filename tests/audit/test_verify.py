import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from bastion.audit.database import create_engine, upgrade
from bastion.audit.events import Event
from bastion.audit.files import State, anchored, files, lines_of, state_file
from bastion.audit.log import AuditLog
from bastion.audit.signing import load
from bastion.audit.verify import Report, verify
from bastion.config import Database
from tests.audit.sections import audit, signing_key
from tests.audit.tampering import seq_of

KEY = load(signing_key()).public
SESSION = {"connection_id": "c", "session_id": "s", "user": "alice", "source_ip": "192.0.2.1"}
SESSION |= {"address": "web.worker.1", "container_id": "f" * 64, "engine": "test"}


async def write_log(folder: Path) -> None:
    """Two starts of a bastion, and a rotation in each: four files, and the anchor with the heads."""
    database = Database(url=SecretStr(f"sqlite+aiosqlite:///{folder}/bastion.db"))
    await upgrade(database)
    engine = create_engine(database)
    file = folder / "audit.jsonl"
    for start in range(2):
        async with AuditLog(audit(file, anchor=folder / "anchor", head_events=15), "b1", engine, file.parent) as log:
            for number in range(30):
                await log.emit(Event.CONFIG_RELOADED, number=number)
                if number % 13 == 5:
                    await log.emit(Event.SESSION_END, **SESSION, status="ended", exit_status=0)
                if number == 20:
                    file.rename(file.with_name(f"audit.jsonl.{2 - start}"))
    await engine.dispose()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    asyncio.run(write_log(folder))
    return folder


def remembered(folder: Path) -> dict[int, tuple[str, str]]:
    return dict(anchored(folder / "anchor", KEY))


def read(folder: Path, known: dict[int, tuple[str, str]], state: bool = True) -> Report:
    tip = State(state_file(folder / "audit.jsonl")).read()
    if tip is not None and state:
        known = known | {tip.seq: (tip.hash, "the state")}
    return verify((line for path in files(folder / "audit.jsonl") for line in lines_of(path)), KEY, known)


def lines_in(folder: Path) -> list[bytes]:
    return [line.raw for path in files(folder / "audit.jsonl") for line in lines_of(path)]


def test_what_was_written_verifies(written: Path) -> None:
    lines = lines_in(written)
    assert len(files(written / "audit.jsonl")) == 3
    assert [seq_of(line) for line in lines] == list(range(1, len(lines) + 1))
    report = read(written, remembered(written))
    assert report.findings == []
    assert (report.first, report.entries, report.tip.seq, report.signed) == (1, *[len(lines)] * 3)
    assert report.heads >= 8
    state = State(state_file(written / "audit.jsonl")).read()
    assert state == report.tip
