import pytest

from bastion.commands.verifying import lines_verified, scrolled_sideways, verified


@pytest.mark.parametrize(
    ("shown", "typed", "result"),
    [
        ("ls -l", "ls -l", ("ls -l", True)),
        ("ls  -l", "ls\t-l", ("ls\t-l", True)),
        ("ls -la", None, ("ls -la", False)),
        ("echo <0301>", "echo \u0301", ("echo \u0301", True)),
        ("echo ??? x", "echo \u00ef\u00ef x", ("echo \u00ef\u00ef x", True)),
        ("echo typingbg done slowly", "echo typing slowly", ("echo typing slowly", True)),
        ("  ls", " ls", (" ls", True)),
        ("lNOISE 1\ns -d logNOISE 2\ns srcNOISE 3", "ls -d logs src", ("ls -d logs src", True)),
        ("lNOISE 1\ns", "ls -d", ("lNOISE 1\ns", False)),
        (
            "</dev/null | sort && echo finished",
            "ls 2>/dev/null | sort && echo finished",
            ("ls 2>/dev/null | sort && echo finished", True),
        ),
        ("a 1\nb 2\nc 3\nEOF 5", "a 1\nb 2\nc 3\nd 4\ne 5\nEOF", ("a 1\nb 2\nc 3\nd 4\ne 5\nEOF", True)),
        ("a 1\nb 2\nx 3\nEOF 5", "a 1\nb 2\nc 3\nd 4\ne 5\nEOF", ("a 1\nb 2\nx 3\nEOF 5", False)),
        ("", "hunter2", ("", False)),
        ("exit", "hunter2", ("exit", False)),
    ],
)
def test_keys_are_taken_only_where_the_screen_shows_them(shown, typed, result):
    assert verified(shown, typed) == result


def test_many_question_marks_are_compared_at_once():
    assert verified("?" * 200 + "x", "\u00e9" * 60 + "y") == ("?" * 200 + "x", False)


def test_rows_of_the_same_character_are_compared_at_once():
    assert verified("\n".join(["a" * 200] * 8), "a" * 1000 + "b") == ("\n".join(["a" * 200] * 8), False)


def test_lines_with_an_enter_each():
    assert lines_verified("echo one \\\n    two", ["echo one \\", "two"]) == ("echo one \\\ntwo", True)
    assert lines_verified("a\nb", ["a", None]) == ("a\nb", False)
    assert lines_verified("a\nb", ["a"]) == ("a\nb", False)


def test_the_end_of_a_line_that_moved_to_the_left():
    assert scrolled_sideways(
        " -c < $f) bytes in it; done | sort      <", "for f in *; do $(wc -c < $f) bytes in it; done | sort"
    )
    assert not scrolled_sideways("ls <", "for f in *; do ls")
    assert not scrolled_sideways("a program's own output", "hunter2 hunter2")
