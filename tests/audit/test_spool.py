import contextlib
import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.audit.spool import Spool


def spool(folder: Path, limit: int = 1 << 20, segment: int = 64) -> Spool:
    made = Spool(folder / "spool", limit, segment)
    made.open()
    return made


def rest(one: Spool) -> list[bytes]:
    found: list[bytes] = []
    while lines := one.first(2):
        found += lines
        one.remove(lines)
    return found


LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=5)
STEP = st.tuples(st.just("append"), LINES) | st.tuples(st.sampled_from(["take", "again", "crash"]), st.integers(1, 9))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(STEP, max_size=30))
def test_first_in_first_out_over_crashes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    """What was taken out may come again after a crash; nothing is missing, and the order stays."""
    folder = tmp_path_factory.mktemp("spool")
    one, put, out = spool(folder), list[bytes](), 0  # `out`: how many of `put` are taken out
    for what, value in steps:
        if what == "append":
            assert isinstance(value, list)
            one.append(value)
            put += value
        elif what == "crash":
            one = spool(folder)
            left = on_disk(folder)
            assert len(left) >= len(put) - out
            assert left == put[len(put) - len(left) :]
            out = len(put) - len(left)
        else:
            assert isinstance(value, int)
            lines = one.first(value)
            assert lines == put[out : out + len(lines)]
            assert lines or out == len(put)
            if what == "take" and lines:
                one.remove(lines)
                out += len(lines)
    assert rest(one) == put[out:]
    assert on_disk(folder) == []
    one.close()


def on_disk(folder: Path) -> list[bytes]:
    return [line for path in sorted((folder / "spool").glob("*")) for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_line_that_a_crash_cut_short_is_none(tmp_path: Path) -> None:
    one = spool(tmp_path)
    one.append([b"whole"])
    (path,) = (tmp_path / "spool").iterdir()
    with path.open("ab") as file:
        file.write(b"torn")
    one = spool(tmp_path)
    one.append([b"next"])
    assert rest(one) == [b"whole", b"next"]


def test_its_limit_and_its_files(tmp_path: Path) -> None:
    one = spool(tmp_path, limit=1000)
    for number in range(9):
        one.append([b"x" * 99, b"%99d" % number][:1] if number % 2 else [b"%99d" % number])
    one.append([b"y" * 99])
    with pytest.raises(OSError, match="MiB wait already") as caught:
        one.append([b"z"])
    assert caught.value.errno == errno.ENOSPC
    one.remove(one.first(1))
    one.append([b"z"])  # and there is room again
    assert len(list((tmp_path / "spool").iterdir())) == 10
    assert len(rest(one)) == 10
    (left,) = (tmp_path / "spool").iterdir()
    assert left.stat().st_size == 0
    assert left.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_takes_all_or_nothing(small_disk: Path) -> None:
    one = spool(small_disk)
    one.append([b"first"])
    filler = small_disk / "other"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as output:
        while True:
            output.write(b"x" * 4096)
    with pytest.raises(OSError, match="No space left"):
        one.append([b"a" * 3000, b"b" * 3000])
    filler.unlink()
    one.append([b"second"])
    assert rest(one) == [b"first", b"second"]
    one.close()
