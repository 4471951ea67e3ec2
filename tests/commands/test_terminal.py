"""The terminal's screen: what is shown, where rows go, and that nothing makes it large."""

import tracemalloc

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.commands.terminal import Terminal


class Noted:
    def __init__(self):
        self.told = []

    def mode_changed(self, mode, on):
        self.told.append((mode, on))

    def line_fed(self):
        self.told.append("line")

    def cursor_placed(self):
        self.told.append("placed")


def shown(output, columns=10, rows=4):
    terminal = Terminal(columns, rows, Noted())
    terminal.feed(output)
    screen = terminal.screen
    return [screen.text(screen.home + y).rstrip() for y in range(rows)]


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        (b"ab\r\ncd", ["ab", "cd", "", ""]),
        (b"abcdefghijkl", ["abcdefghij", "kl", "", ""]),
        (b"abcdefghij\rX", ["Xbcdefghij", "", "", ""]),  # the wrap waits for the next character
        ("a日本b".encode(), ["a日本b", "", "", ""]),
        ("123456789日".encode(), ["123456789", "日", "", ""]),
        ("e\u0301x".encode(), ["e\u0301x", "", "", ""]),
        (b"abc\b\b\x1b[P", ["ac", "", "", ""]),
        (b"abc\b\b\x1b[@", ["a bc", "", "", ""]),
        (b"abc\b\b\x1b[4hX", ["aXbc", "", "", ""]),
        (b"abcdef\x1b[3D\x1b[K", ["abc", "", "", ""]),
        (b"abcdef\x1b[3D\x1b[1K", ["    ef", "", "", ""]),
        (b"1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"]),
        (b"1\r\n2\r\n3\x1b[2A\x1b[L", ["", "1", "2", "3"]),
        (b"1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n", ["1", "3", "", "4"]),
        (b"a\x1b[3b", ["aaaa", "", "", ""]),
        (b"a\x1b]0;title\x07b\x1bPq...\x1b\\c", ["abc", "", "", ""]),
        (b"main\x1b[?1049hfull\x1b[?1049l!", ["main!", "", "", ""]),
        (b"abc\x1b[2Jd", ["   d", "", "", ""]),
    ],
)
def test_what_is_shown(output, rows):
    assert shown(output) == rows


def test_rows_keep_their_numbers_when_the_screen_scrolls_and_is_cleared():
    terminal = Terminal(10, 4, Noted())
    screen = terminal.screen
    terminal.feed(b"first\r\nsecond\r\n")
    place = screen.row_number
    terminal.feed(b"here" + b"\r\n" * 6)
    assert screen.text(place) == "here"
    terminal.feed(b"\x1b[H\x1b[2Jnew")
    assert screen.text(place) == "here"
    assert screen.text(screen.row_number) == "new"


def test_a_row_knows_whether_it_was_wrapped():
    terminal = Terminal(4, 4, Noted())
    terminal.feed(b"abcdef\r\nxy")
    assert [terminal.screen.row(n).wrapped for n in range(3)] == [True, False, False]


def test_modes_and_line_feeds_are_told_in_order():
    noted = Noted()
    Terminal(80, 24, noted).feed(b"\x1b[?2004hls\r\n\x1b[?2004l\x1b[?1;7h")
    assert noted.told == [(2004, True), "line", (2004, False), (1, True), (7, True)]


def test_skimmed_output_leaves_modes_and_whatever_begins_at_its_end():
    terminal = Terminal(80, 24, Noted())
    terminal.skim(b"x" * 1000 + b"\x1b[?20")
    terminal.skim(b"04hyyy\x1b[?10")
    assert terminal.bracketed_paste
    terminal.feed(terminal.resume() + b"49hfull")
    assert terminal.screen.alternate


WORDS = [
    b"ab",
    b"x" * 7,
    b"\r",
    b"\n",
    b"\b",
    b"\t",
    b"\x1b[A",
    b"\x1b[2B",
    b"\x1b[C",
    b"\x1b[3D",
    b"\x1b[2;3H",
    b"\x1b[K",
]
WORDS += [
    b"\x1b[1K",
    b"\x1b[2K",
    b"\x1b[P",
    b"\x1b[2@",
    b"\x1b[L",
    b"\x1b[2X",
    b"\x1b[4G",
    b"\x1b[2d",
    b"\x1bM",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_the_same_is_shown_as_by_pyte(words):
    output = b"".join(words)
    screen = pyte.Screen(240, 5)
    screen.set_mode(pyte.modes.DECAWM)
    pyte.ByteStream(screen).feed(output)
    assert shown(output, 240, 5) == [line.rstrip() for line in screen.display]


HOSTILE = [b"\x1b[2147483647;2147483647Hx", b"\x1b[999999999S", b"\x1b]0;" + b"t" * 5000, b"\x1b[99999L\x1b[99999M"]
HOSTILE += [b"\x1b[999999999b", b"\x1b[" + b"1;" * 500, b"line\n" * 500, b"e" + "\u0301".encode() * 500]
HOSTILE += ["\U0001f600".encode() * 500]


@pytest.mark.parametrize("piece", HOSTILE)
def test_what_is_kept_is_bounded(piece):
    tracemalloc.start()
    terminal = Terminal(2**31, 2**31, Noted())
    for _ in range(60):
        terminal.feed(piece)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 16 << 20


def test_a_line_editor_that_asks_where_the_cursor_is():
    terminal = Terminal(80, 24, Noted())
    terminal.feed(b"~ # \x1b[6n")
    assert terminal.asks_position
    terminal.feed(b"\x1b[?2004h")
    assert not terminal.asks_position
