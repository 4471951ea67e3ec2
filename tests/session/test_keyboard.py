"""Keys out of bytes: every known sequence, in whatever pieces it comes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.session.keyboard import Key, KeyDecoder

INTERESTING = st.sampled_from(
    [b"\x1b", b"[", b"O", b"A", b"~", b"5", b"1;5", b"\r", b"\x03", b"\x7f", "é".encode(), "界".encode(), b"\xff", b"x"]
)
TYPED = st.lists(st.one_of(INTERESTING, st.binary(max_size=3)), max_size=30).map(b"".join)


def keys_of(*chunks: bytes) -> tuple[list[Key | str], bytes]:
    decoder = KeyDecoder()
    keys = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (key := decoder.next()) is not None:
            keys.append(key)
    return keys, decoder.rest()


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (b"\x1b[A", Key.UP),
        (b"\x1bOA", Key.UP),
        (b"\x1b[1;5A", Key.UP),
        (b"\x10", Key.UP),
        (b"\x1b[B", Key.DOWN),
        (b"\x1bOB", Key.DOWN),
        (b"\x0e", Key.DOWN),
        (b"\x1b[5~", Key.PAGE_UP),
        (b"\x1b[6~", Key.PAGE_DOWN),
        (b"\x1b[6;2~", Key.PAGE_DOWN),
        (b"\x1b[H", Key.HOME),
        (b"\x1bOH", Key.HOME),
        (b"\x1b[1~", Key.HOME),
        (b"\x1b[7~", Key.HOME),
        (b"\x1b[F", Key.END),
        (b"\x1bOF", Key.END),
        (b"\x1b[4~", Key.END),
        (b"\x1b[8~", Key.END),
        (b"\x7f", Key.BACKSPACE),
        (b"\x08", Key.BACKSPACE),
        (b"\x15", Key.CLEAR),
        (b"\r", Key.ENTER),
        (b"\n", Key.ENTER),
        (b"\x03", Key.LEAVE),
        (b"\x04", Key.LEAVE),
        (b"x", "x"),
        (b" ", " "),
        ("é".encode(), "é"),
        ("界".encode(), "界"),
        ("👍".encode(), "👍"),
    ],
)
def test_each_key_in_one_piece_and_byte_by_byte(sent: bytes, key: Key | str) -> None:
    assert keys_of(sent) == ([key], b"")
    assert keys_of(*(sent[i : i + 1] for i in range(len(sent)))) == ([key], b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x1b[C",  # right
        b"\x1b[3~",  # delete
        b"\x1b[[A",  # the Linux console's F1
        b"\x1b[~",
        b"\x1b[Z",  # shift-tab
        b"\x1bOP",  # F1
        b"\x1bx",  # Alt-x
        b"\x1b5",  # Alt-5
        b"\x00",
        b"\t",
        b"\x9b",  # CSI as one byte: no UTF-8
        "\x9b".encode(),
        "\u202e".encode(),
        b"\xc0\xaf",  # an overlong slash
        b"\xed\xa0\x80",  # a surrogate
        b"\xf5\x80\x80\x80",
    ],
)
def test_other_sequences_do_nothing_and_type_nothing(sent: bytes) -> None:
    keys, rest = keys_of(sent + b"\r")
    assert set(keys[:-1]) == {Key.OTHER}
    assert (keys[-1], rest) == (Key.ENTER, b"")
    assert keys_of(*(sent[i : i + 1] for i in range(len(sent))), b"\r") == (keys, rest)


@pytest.mark.parametrize("broken", [b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b[" + b"1" * 32, b"\xe2\x82", b"\xf0"])
def test_ctrl_c_counts_in_the_middle_of_a_sequence(broken: bytes) -> None:
    keys, rest = keys_of(broken + b"\x03")
    assert set(keys[:-1]) == {Key.OTHER}
    assert (keys[-1], rest) == (Key.LEAVE, b"")
    assert keys_of(broken, b"\x03") == (keys, rest)


def test_a_sequence_that_never_ends_is_not_kept() -> None:
    decoder = KeyDecoder()
    for _ in range(1000):
        decoder.feed(b"\x1b[" + b";" * 100)
        while decoder.next() is not None:
            pass
    assert len(decoder.rest()) <= 100


@pytest.mark.parametrize("after", [b"\r", b"\x1b", b"\x1b[A", b"\x03"])
def test_esc_and_another_key_at_once_is_esc(after: bytes) -> None:
    decoder = KeyDecoder()
    decoder.feed(b"\x1b" + after)
    assert decoder.next() is Key.LEAVE


def test_only_time_decides_about_a_lone_esc() -> None:
    decoder = KeyDecoder()
    assert not decoder.undecided()
    decoder.feed(b"\x1b")
    assert decoder.next() is None
    assert decoder.undecided()
    assert decoder.decide() is Key.LEAVE
    assert not decoder.undecided()
    decoder.feed(b"\x1b[")
    assert decoder.next() is None
    assert decoder.undecided()
    assert decoder.decide() is None  # Alt-[ or a broken sequence
    decoder.feed(b"A")
    assert decoder.next() == "A"


def test_what_follows_a_key_can_be_given_back_byte_for_byte() -> None:
    decoder = KeyDecoder()
    decoder.feed(b"x\rls \xff\x1b[A\x1b\r")
    assert [decoder.next(), decoder.next()] == ["x", Key.ENTER]
    assert decoder.rest() == b"ls \xff\x1b[A\x1b\r"
    assert decoder.rest() == b""


@given(st.lists(TYPED, max_size=8))
@settings(deadline=None)
def test_the_pieces_do_not_matter(chunks: list[bytes]) -> None:
    assert keys_of(*chunks) == keys_of(b"".join(chunks))


@given(TYPED)
@settings(deadline=None)
def test_what_is_typed_prints(sent: bytes) -> None:
    assert all(isinstance(key, Key) or (len(key) == 1 and key.isprintable()) for key in keys_of(sent)[0])


@given(st.text())
@settings(deadline=None)
def test_text_is_taken_as_it_is(text: str) -> None:
    printable = "".join(char for char in text if char.isprintable())
    assert keys_of(printable.encode()) == (list(printable), b"")
