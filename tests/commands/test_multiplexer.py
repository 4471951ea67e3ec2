"""Panes of tmux, as its client shows them: what a pane's shell says of its line editor stays inside."""

import pytest

from bastion.commands.detector import Detector

BEGIN, END = b"\x1b[?2004h", b"\x1b[?2004l\r"
STATUS = b"\x1b[24;1H[0] 0:sh*\x1b[1;1H"


def typed(detector, at, text):
    for key in text:
        detector.input(at, bytes([key]))
        detector.output(at, bytes([key]))


def tmux():
    detector = Detector(80, 24)
    detector.output(0, BEGIN + b"web:~$ ")
    typed(detector, 1, b"tmux")
    detector.input(1, b"\r")
    detector.output(1, b"\r\n" + END + b"\x1b[?1049h\x1b[H\x1b[2J" + STATUS)
    return detector


@pytest.mark.parametrize("prompt", [b"web:~$ ", b"other~> ", b"# "])
def test_a_line_at_a_prompt_also_at_one_that_is_not_known_yet(prompt):
    detector = tmux()
    detector.output(1, prompt)
    typed(detector, 2, b"ls -l")
    detector.input(2, b"\r")
    detector.output(2, b"\r\ntotal 0\r\n" + prompt)
    assert [(c.content, c.prompt) for c in detector.finish()] == [("tmux", "web:~$ "), ("ls -l", prompt.decode())]


def test_what_is_typed_into_an_editor_in_a_pane_is_no_command():
    detector = tmux()
    detector.output(1, b"\x1b[3;1Hint main() { int a;\x1b[3;19H")
    for text in (b" b;", b"return 0;"):
        typed(detector, 2, text)
        detector.input(2, b"\r")
        detector.output(2, b"\r\n")
    assert [c.content for c in detector.finish()] == ["tmux"]
