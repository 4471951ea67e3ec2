import pytest

from bastion.commands.script import CUT, LIMIT, PIECE, Script, reads_script
from bastion.model import Command, Confidence


@pytest.mark.parametrize(
    "command", [None, "sh", "sh -s", "bash -s -- arg", "/bin/sh -ex", "env A=1 bash", "A=1 sudo sh -", "busybox sh"]
)
def test_shells_that_read_commands(command):
    assert reads_script(command)


@pytest.mark.parametrize("command", ["cat", "sh -c id", "bash -lc 'id'", "sh script.sh", "tar x", "", "echo 'sh"])
def test_what_reads_something_else(command):
    assert not reads_script(command)


def test_a_script_is_told_in_pieces_of_whole_lines():
    script = Script()
    script.input(1.0, b"echo one\necho two\n")
    assert script.take(1.5) == []
    assert script.take(2.5) == [Command("echo one\necho two", Confidence.INPUT, 1.0)]
    script.input(3.0, b"a line\n" * (PIECE // 5))
    (piece,) = script.take(3.0)
    assert set(piece.content.split("\n")) == {"a line"}
    script.input(3.1, b"without newline")
    assert script.finish()[-1].content.endswith("a line\nwithout newline")
    assert script.finish() == []


def test_beyond_the_limit_nothing_is_kept_and_it_is_marked():
    script = Script()
    for at in range(40):
        script.input(at, b"0123456789abcde\n" * 256)
    pieces = script.finish()
    assert pieces[-1].content.endswith(CUT)
    assert LIMIT - 100 < sum(len(piece.content) + 1 for piece in pieces) < LIMIT + 200
