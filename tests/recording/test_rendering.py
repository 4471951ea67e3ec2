"""What was to be read, and when; with the emulation that the command line uses."""

import io

import pytest

from bastion.cli.recordings import make_terminal
from bastion.model import Stream
from bastion.recording.asciicast import Header, Reader, encode_binary, encode_header, encode_text
from bastion.recording.rendering import rendered


def read(*output: tuple[float, str], terminal: bool = True, code: str = "o") -> list[tuple[float, str]]:
    lines = [encode_text(time, "r" if text[:2] == "r:" else code, text.removeprefix("r:")) for time, text in output]
    header = Header("s", "alice", "web", 0, 40, 10, terminal=terminal)
    recording = Reader(io.BytesIO(encode_header(header) + b"".join(lines)))
    return [(line.time, line.text) for line in rendered(recording, make_terminal)]


def test_a_line_that_is_typed_is_one_line_at_the_time_of_its_last_key() -> None:
    keys = [(number / 10, key) for number, key in enumerate(["$ ", "l", "s", " ", "-", "x", "\b \b", "a"])]
    assert read(*keys, (5, "\r\nfile\r\n$ ")) == [(0.5, "$ ls -x"), (0.7, "$ ls -a"), (5, "file"), (5, "$")]


def test_what_is_overwritten_or_cleared_was_there() -> None:
    shown = read((0, "10%"), (1, "\r\x1b[K20%"), (2, "\r\x1b[Kdone\r\n"), (3, "\x1b[2J\x1b[Hnext"), (3.5, "\x1bcreset"))
    assert shown == [(0, "10%"), (1, "20%"), (2, "done"), (3, "next"), (3.5, "reset")]


def test_colours_and_moves_do_not_part_a_word() -> None:
    assert read((0, "pass\x1b[31mword\x1b[0m\x1b[5;1Hbelow\x1b[1;1H\x1b[4CWORD")) == [(0, "passWORD"), (0, "below")]


def test_a_line_that_wraps_is_one_line() -> None:
    assert read((0, "x" * 39 + "needle" + "y" * 60 + "\r\nend")) == [(0, "x" * 39 + "needle" + "y" * 60), (0, "end")]


def test_a_full_screen_program_leaves_the_screen_before_it_alone() -> None:
    shown = read((0, "$ vi\r\n"), (1, "\x1b[?1049h\x1b[2J\x1b[Htext\r\n~"), (9, "\x1b[?1049l$ exit"))
    assert shown == [(0, "$ vi"), (1, "text"), (1, "~"), (9, "$ exit")]


def test_what_scrolls_in_a_full_screen_program_is_told_once() -> None:
    begin = "\x1b[?1049h\x1b[2J\x1b[H" + "\r\n".join(f"row {n}" for n in range(10))
    scroll = [(n, f"\r\nrow {n}") for n in range(10, 15)]
    assert read((0, begin), *scroll) == [(0, f"row {n}") for n in range(10)] + [(n, f"row {n}") for n in range(10, 15)]


@pytest.mark.parametrize("between", ["\r\n", "\x1b[2J\x1b[H", "\x1b[99S\r", "\x1bc", "\n\r", "\x1b[10;1H\x1bD\r"])
def test_no_line_of_a_flood_is_lost(between: str) -> None:
    words = [f"line-{n}" for n in range(3000)]
    assert [text for _, text in read((0, between.join(words)))] == words


def test_resizes() -> None:
    assert read((0, "x" * 30), (1, "r:20x5"), (2, "\r\n" + "y" * 25)) == [(0, "x" * 30), (2, "y" * 25)]


def test_without_a_terminal_newlines_are_enough_and_what_is_no_text_is_left_out() -> None:
    assert read((0, "one\ntw"), (1, "o\n"), terminal=False) == [(0, "one"), (1, "two")]
    assert read((0, "error\n"), terminal=False, code="e") == [(0, "error")]
    binary = encode_header(Header("s", "a", "w", 0)) + encode_binary(0, Stream.OUTPUT, b"\0word")
    assert list(rendered(Reader(io.BytesIO(binary)), make_terminal)) == []
