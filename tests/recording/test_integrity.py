"""Every change of a recording is found, and named where it is; what a crash leaves is none."""

import itertools
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bastion.recording.asciicast import Header, Reader, encode_header, encode_text
from bastion.recording.chain import BLOCK, Chain, End
from bastion.recording.files import compress, open_lines
from bastion.recording.integrity import Damage, Finding, verify
from bastion.recording.sealing import Sealer, generate
from tests.recording import verifier
from tests.recording.tampering import KINDS, Changed, Lines, chain_lines

PRIVATE, PUBLIC = generate()
HEADER = encode_header(Header("s", "alice", "web", 0, terminal=True))


def lines(sealer: Sealer | None = None) -> tuple[Lines, End]:
    """What is appended to a recording of some blocks, with its chain lines."""
    chain, made = Chain(), random.Random(7)
    appended = [HEADER]
    for second in range(1200):
        appended.append(encode_text(second, "o", "".join(made.choices("abcdef \n", k=made.randrange(1, 500)))))
    appended.append(encode_text(1200, "z", "0"))
    if sealer:
        appended = [*map(sealer.seal, appended), sealer.end()]
    written = [chain.extend(line) for line in appended]
    return b"".join(written).splitlines(keepends=True), chain.end


LINES, END = lines()
CHAIN = chain_lines(LINES)


def check(path: Path, data: Lines, remembered: End | None) -> Finding | None:
    path.write_bytes(b"".join(data))
    finding = verify(path, remembered).finding
    beside = (remembered.bytes, remembered.blocks, remembered.sha256) if remembered else None
    assert (verifier.verify(str(path), beside) is None) == (finding is None)
    return finding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.cast"


def test_what_was_written_is_as_it_was_written(path: Path) -> None:
    assert END.blocks == len(CHAIN) + 1 > 4
    for first, behind in itertools.pairwise([0, *CHAIN]):
        assert BLOCK <= len(b"".join(LINES[first:behind])) < BLOCK + 1000
    path.write_bytes(b"".join(LINES))
    verdict = verify(path, END)
    assert (verdict.end, verdict.ended, verdict.finding) == (END, True, None)
    assert END.bytes == path.stat().st_size
    compress(path)
    packed = path.with_name("s.cast.zst")
    assert [file.name for file in path.parent.iterdir()] == ["s.cast.zst"]
    assert packed.stat().st_size < END.bytes / 1.5
    assert verify(packed, END) == verdict
    assert verify(path, END) == verdict  # by the name that it had
    command = [sys.executable, verifier.__file__, str(packed), str(END.bytes), str(END.blocks), END.sha256]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"as it was written\n"


def test_a_short_one_is_one_block_whose_hash_is_the_file_s(path: Path) -> None:
    path.write_bytes(HEADER)
    printed = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert verify(path, None).end == End(len(HEADER), 1, printed.split()[0])


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("change", KINDS)
def test_every_change_is_found_where_it_is(
    path: Path, change: Callable[[Lines, random.Random], Changed], *, sealed: bool
) -> None:
    """More: tests/audit/test_tampering.py. The lines that are named hold the first of them, and are a block or two."""
    data, end = lines(Sealer([PUBLIC])) if sealed else (LINES, END)
    block = max(behind - first for first, behind in itertools.pairwise([0, *chain_lines(data), len(data)]))
    made = random.Random(change.__name__)
    for _ in range(10):
        changed, damages, first, last = change(data, made)
        finding = check(path, changed, end)
        assert finding is not None
        assert finding.damage in damages
        assert finding.first_line - 1 <= last
        assert finding.last_line >= first
        assert finding.last_line - finding.first_line <= 2 * block


def test_without_what_the_log_remembers_all_but_the_last_block_is_guarded(path: Path) -> None:
    assert check(path, LINES, None) is None
    after = check(path, [*LINES, encode_text(1201, "o", "more")], None)
    assert after is not None
    assert (after.damage, after.first_line, after.last_line) == (Damage.ADDED, len(LINES) + 1, len(LINES) + 1)
    changed = list(LINES)
    changed[3] = changed[3].replace(b"a", b"b")
    assert check(path, changed, None) is not None


def test_another_session_s_recording_is_found(path: Path) -> None:
    path.write_bytes(encode_header(Header("other", "alice", "web", 0)))
    assert verify(path, None).finding is not None


def test_what_a_crash_leaves_is_no_tampering(path: Path) -> None:
    """Cut anywhere in the last append: the next start remembers what it finds, and from then on that is guarded."""
    whole = b"".join(LINES[:-1])
    for kept in (len(whole), len(whole) - 1, len(whole) - 30):
        path.write_bytes(whole[:kept])
        verdict = verify(path, None)
        assert (verdict.finding, verdict.ended) == (None, False)
        assert verify(path, verdict.end).finding is None
        path.write_bytes(whole[: kept - 200])
        cut_short = verify(path, verdict.end).finding
        assert cut_short is not None
        assert cut_short.damage is Damage.CUT_SHORT


def test_a_damaged_compressed_file_is_found(path: Path) -> None:
    path.write_bytes(b"".join(LINES))
    compress(path)
    packed = path.with_name("s.cast.zst")
    data = bytearray(packed.read_bytes())
    for at in (0, len(data) // 2, len(data) - 5):
        packed.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert verify(packed, END).finding is not None
    packed.write_bytes(data[:-100])
    assert verify(packed, END).finding is not None


def test_one_that_is_gone_is_an_error_of_its_own(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify(path, END)


def test_the_place_reads_well() -> None:
    assert str(Finding(Damage.CHANGED, 12, 40, 65536, 90.5)) == (
        "changed in lines 12 to 40 (from byte 65536 on, from 1:30.50 on)"
    )


def test_a_reader_does_not_see_the_chain(path: Path) -> None:
    path.write_bytes(b"".join(LINES))
    with open_lines(path) as file:
        assert len(list(Reader(file))) == len(LINES) - 1 - len(CHAIN)
