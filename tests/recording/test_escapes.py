"""A hostile recording does nothing to the viewer's terminal but show text."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bastion.recording.escapes import Filter


def filtered(*chunks: bytes) -> bytes:
    screen = Filter()
    return b"".join(screen.feed(chunk) for chunk in chunks)


HOSTILE = [
    b"\x1b]52;c;ZXZpbA==\x07",  # clipboard
    b"\x1b]0;title\x1b\\",
    b"\x1b]8;;file:///etc/passwd\x07",
    b"\x1b]50;?\x07",
    b"\x1bP$qm\x1b\\",  # DECRQSS
    b"\x1bP+q544e\x1b\\",
    b"\x1b_Gf=100,t=f;L2V0Yy9wYXNzd2Q=\x1b\\",  # kitty reads a file
    b"\x1b^pm\x1b\\",
    b"\x1bXsos\x1b\\",
    b"\x9d52;c;x\x9c",
    b"\xc2\x9d52;c;x\xc2\x9c",  # C1 in UTF-8
    b"\xc2\x90$qm\xc2\x9c",
    b"\xc2\x9b6n",
    b"\x9b6n",
    b"\x1b[6n",
    b"\x1b[?6n",
    b"\x1b[5n",
    b"\x1b[c",
    b"\x1b[>c",
    b"\x1b[=c",
    b"\x1b[0c",
    b"\x1b[x",
    b"\x1b[21t",
    b"\x1b[8;9999;9999t",
    b"\x1b[?1$p",
    b"\x1b[5i",  # media copy
    b"\x1b[?4i",
    b"\x1b[1;2;3;4;5T",
    b"\x1b[3;9s",  # margins
    b"\x1b[1u",
    b"\x1b[>4;2m",
    b"\x1b[?4m",
    b"\x1b[>1u",
    b"\x1b[?u",
    b"\x1b[!p",
    b"\x1b[1*y",
    b"\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?1004h\x1b[?1h",
    b"\x1bP0;1|17/72656c\x1b\\",  # DECUDK: a key that types
    b"\x1b[2h",  # KAM: the keyboard is locked
    b"\x1b`\x1bb",  # DMI, EMI
    b"\x1bn\x1bo\x1b|\x1b}\x1b~",  # locking shifts
    b"\x1bZ",
    b"\x1bc",
    b"\x1b#8",
    b"\x1b n",
    b"\x1b%G",
    b"\x1b[99999b",
    b"\x05",  # ENQ
    b"\x07",
    b"\x00\x7f",
]


@pytest.mark.parametrize("sequence", HOSTILE, ids=ascii)
def test_hostile_sequences_are_left_out_wherever_they_are_cut(sequence: bytes) -> None:
    whole = filtered(b"before" + sequence + b"after").decode()
    assert re.fullmatch(r"before(\ufffd[^\x00-\x1f]*)?after", whole)  # a byte that is no UTF-8 makes the rest text
    for cut in range(1, len(sequence)):
        assert filtered(b"before" + sequence[:cut], sequence[cut:] + b"after").decode() == whole
    assert filtered(b"before", *[bytes([byte]) for byte in sequence], b"after").decode() == whole


@pytest.mark.parametrize(
    "kept",
    [
        b"plain \xe4\xb8\xad\r\n\t\b",
        b"\x1b[1;38;5;12;48:2::1:2:3mcolour\x1b[m",
        b"\x1b[H\x1b[2J\x1b[3;4H\x1b[A\x1b[10C\x1b[K\x1b[1P\x1b[2@\x1b[L\x1b[4M\x1b[1;24r\x1b[5d\x1b[7G\x1b[3b\x1b[2T\x1b[s\x1b[u",
        b"\x1b[?25l\x1b[?1049h\x1b[?7l\x1b[4h\x1b[?1049l",
        b"\x1b(0lqk\x1b(B\x0e\x0f\x1b7\x1b8\x1bM",
    ],
)
def test_what_is_harmless_is_shown_as_it_is(kept: bytes) -> None:
    assert filtered(kept) == kept
    assert filtered(*[bytes([byte]) for byte in kept]) == kept


def test_harmless_modes_are_taken_out_of_a_list() -> None:
    assert filtered(b"\x1b[?1;25;2004;7h") == b"\x1b[?25;7h"


def test_a_string_without_end_hides_no_more_than_its_line() -> None:
    assert filtered(b"\x1b]0;hidden", b"hidden\nshown") == b"\nshown"


DANGEROUS = re.compile("\x1b[\\]P_^X]|[\x80-\x9f]|\x1b\\[[^@-~]*[ncxtiqpy]|\x1b\\[[<=>]|\x1bZ|\x1bc|\x05")
pieces = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.binary(max_size=6),
        st.sampled_from(
            [
                b"\x1b",
                b"\x1b[",
                b"\x1b]",
                b"[",
                b"]",
                b"P",
                b"\\",
                b"6",
                b"n",
                b"c",
                b"\x18",
                b"\n",
                b"\x9b",
                b"\xc2",
                b"?",
                b";",
                b"h",
            ]
        ),
    ),
    max_size=14,
)


@settings(max_examples=1000)
@given(pieces)
@example([b"\x1b", b"\x1b]", b"x"])
@example([b"\x1b]0;\x1b", b"]52;c;x\x07"])
@example([b"\x1b[6\x1b]n"])
def test_no_dangerous_sequence_comes_out_whatever_goes_in(chunks: list[bytes]) -> None:
    screen = Filter()
    out = b"".join(screen.feed(chunk) for chunk in chunks) + screen.reset()
    assert DANGEROUS.search(out.decode("utf-8")) is None


@given(pieces)
def test_cutting_makes_no_difference(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assert filtered(*[bytes([byte]) for byte in data]) == filtered(data)
