from pathlib import Path

import pytest

from bastion.audit import progress
from bastion.audit.progress import Mark, UnderWay, under_way


def test_what_was_put_in_and_is_no_more_there_may_not_be_missing(tmp_path: Path) -> None:
    assert under_way(tmp_path) == UnderWay(0, frozenset())
    spool = progress.spool_folder(tmp_path)
    spool.mkdir()
    (spool / "000000000001.jsonl").write_text('{"id": "a", "seq": 6}\n{"id": "b", "seq": 7}\n{"id": "c"')
    mark = Mark(tmp_path)
    mark.open()
    for number in (1_000_000, 7):
        mark.set(number)
        assert mark.read() == number
    mark.close()
    found = under_way(tmp_path)
    assert found == UnderWay(7, frozenset({"a", "b"}))
    assert [found.may_be_missing(*one) for one in ((5, "x"), (6, "a"), (7, "z"), (8, "c"))] == [
        False, True, False, True,
    ]  # fmt: skip


def test_after_a_loss_of_power_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spool and SQLite's last rows are not brought to the disk one by one."""
    mark = Mark(tmp_path)
    mark.open()
    mark.set(7)
    started = progress._booted_at()
    monkeypatch.setattr(progress, "_booted_at", lambda: started + 30)  # no test can turn the machine off
    assert mark.read() == 0
    monkeypatch.setattr(progress, "_booted_at", lambda: started + 0.5)  # the clock was corrected a little
    assert mark.read() == 7
    mark.close()
