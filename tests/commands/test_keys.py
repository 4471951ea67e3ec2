import pytest

from bastion.commands.keys import MAX_LINE, Keys, TypedLine


def keys(*pieces):
    cut = Keys()
    return [key for piece in pieces for key in cut.feed(piece)]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"ls\r"], [b"ls", b"\r"]),
        ([b"a\x1b[Ab\x1bOBc\x1bd"], [b"a", b"\x1b[A", b"b", b"\x1bOB", b"c", b"\x1bd"]),
        ([b"\x1b"], [b"\x1b"]),  # the escape key is not held back
        ([b"\x1b[1;5R", b"x"], [b"x"]),  # cursor position report
        ([b"\x1b[12;", b"40Rls"], [b"ls"]),
        ([b"\x1b]11;rgb:00/00/00\x1b\\ls", b"\x1b[?62;22c\x1b[>0;1;0c\x1b[I\x1b[<0;1;1M"], [b"ls"]),
        ([b"\x1b[200~ls\x1b[201~"], [b"\x1b[200~", b"ls", b"\x1b[201~"]),
    ],
)
def test_keys_without_the_terminals_answers(pieces, expected):
    assert keys(*pieces) == expected


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (b"lx\x7fs", "ls"),
        ("na\u00efv\x7f".encode(), "na\u00ef"),
        ("日本\x7f".encode(), "日"),
        (b"wrong\x15ls", "ls"),
        (b"echo a b\x17c", "echo a c"),
        (b"ec\x1b[A", None),
        (b"l\t", None),
        (b"x" * (MAX_LINE + 1), None),
    ],
)
def test_a_line_is_known_as_long_as_keys_alone_say_it(typed, text):
    line = TypedLine()
    for key in keys(typed):
        line.key(key)
    assert line.known_text == text
    assert len(line.typed) <= MAX_LINE


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (b"ec\x1b[D\x1b[Da\x1b[Cb", "aebc"),
        ("x日本\x1bOD\x7f\x1b[3~y".encode(), "xy"),
        (b"ls -l\x01sudo \x05a", "sudo ls -la"),
        (b"ls -l\x02\x02\x0b-a", "ls -a"),
        (b"echo a\x16\tb", "echo a\tb"),
        (b"ls\x1b[C", None),  # at the end of a line it may take what the shell suggests
        (b"ls\x05", None),
        (b"ls -l\x02\x15", None),  # all of it, or what is before the cursor
        (b"ls\x1b[A", None),
    ],
)
def test_a_line_in_which_the_cursor_was_moved(typed, text):
    line = TypedLine()
    for key in keys(typed):
        line.key(key)
    assert line.known_text is None
    assert line.edited_text == text


def test_what_a_program_may_have_taken_is_kept_apart():
    line = TypedLine()
    line.key(b"q")
    line.divide()
    line.key(b"ls")
    assert (line.earlier, line.known_text) == ("q", "ls")


def test_no_line_is_longer_than_can_be_remembered() -> None:
    """Not what is left of the cursor, nor what is right of it, nor what a program may have taken."""
    line = TypedLine()
    for _ in range(3):
        for _ in range(MAX_LINE // 2):
            line.key(b"x")
        line.key(b"\x01")  # to its beginning
    assert len(line.typed) == MAX_LINE
    assert line.edited_text is None, "it is not known as a whole"
    for _ in range(3):
        line.divide()
        for _ in range(MAX_LINE // 2):
            line.key(b"x")
    assert len(line.earlier or "") == MAX_LINE
