import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bastion.audit import rotation
from bastion.audit.rotation import move_if_due, rotate
from bastion.config import Audit
from tests.audit.waiting import eventually

NOW = datetime(2026, 11, 25, 21, 37, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_text("torn\n" + json.dumps({"time": "2026-11-25T20:59:59.999999Z"}) + "\n")
    return path


def moved(path: Path, config: Audit, now: datetime = NOW) -> list[str]:
    move_if_due(path, config, now)
    return sorted(one.name for one in path.parent.iterdir())


def test_what_is_large_is_moved(file: Path) -> None:
    size = file.stat().st_size
    assert moved(file, Audit(file=file, rotate_bytes=size + 1)) == ["audit.jsonl"]
    assert moved(file, Audit(file=file, rotate_bytes=size)) == ["audit.jsonl-20261125T213700Z"]
    assert moved(file, Audit(file=file, rotate_bytes=size)) == ["audit.jsonl-20261125T213700Z"]  # none is there now


def test_nothing_is_overwritten(file: Path) -> None:
    file.with_name("audit.jsonl-20261125T213700Z").write_text("before")
    assert moved(file, Audit(file=file, rotate_bytes=1)) == ["audit.jsonl", "audit.jsonl-20261125T213700Z"]
    assert file.with_name("audit.jsonl-20261125T213700Z").read_text() == "before"


@pytest.mark.parametrize(
    ("period", "now", "due"),
    [
        ("hour", "2026-11-25T20:59:59.999999Z", False),
        ("hour", "2026-11-25T21:00:00Z", True),
        ("day", "2026-11-25T23:59:59Z", False),
        ("day", "2026-11-26T00:00:00Z", True),
        ("week", "2026-11-29T23:59:59Z", False),  # a Sunday
        ("week", "2026-11-30T00:00:00Z", True),
    ],
)
def test_whose_time_is_over_is_moved(file: Path, period: str, now: str, due: bool) -> None:
    config = Audit.model_validate({"file": file, "rotate_every": period})
    found = moved(file, config, datetime.fromisoformat(now))
    assert ("audit.jsonl" not in found) is due


@pytest.mark.parametrize("content", ["", "torn", "{}\n", "[]\n"])
def test_a_file_without_an_event_stays(file: Path, content: str) -> None:
    file.write_text(content)
    assert moved(file, Audit(file=file, rotate_every="hour")) == ["audit.jsonl"]


async def test_it_goes_on_after_an_error(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "LOOK", 0.01)
    await rotate(Audit(file=file))  # nothing to do
    folder = file.parent
    bad = folder.with_name(folder.name + "x" * 300)
    task = asyncio.create_task(rotate(Audit(file=bad / "audit.jsonl", rotate_bytes=1)))

    async def said() -> bool:
        return "can not be rotated: File name too long" in caplog.text

    await eventually(said, "the error is said")
    assert not task.done()
    task.cancel()
    good = asyncio.create_task(rotate(Audit(file=file, rotate_bytes=1)))

    async def moved_away() -> bool:
        return not file.exists()

    await eventually(moved_away, "it is moved")
    good.cancel()
    await asyncio.gather(task, good, return_exceptions=True)
