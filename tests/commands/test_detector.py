"""The detector as a whole, on what no recording has: order, time, floods, and input made to harm it."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.commands.detector import BUDGET, Detector
from bastion.model import Command, Confidence

BEGIN, END = b"\x1b[?2004h", b"\x1b[?2004l\r"


def typed(detector, at, text, echo=True):
    for key in text:
        detector.input(at, bytes([key]))
        if echo and key >= 0x20:
            detector.output(at, bytes([key]))


def shell(detector, at=0.0, prompt=b"$ "):
    detector.output(at, BEGIN + prompt)


def run(detector, at, line, output=b""):
    typed(detector, at, line)
    detector.input(at, b"\r")
    detector.output(at, b"\r\n" + END + output)


def test_a_command_with_its_time_and_prompt():
    detector = Detector(80, 24)
    shell(detector, prompt=b"alice@web:~$ ")
    run(detector, 3.5, b"ls -l", b"total 0\r\n")
    assert detector.finish() == [Command("ls -l", Confidence.EXACT, 3.5, "alice@web:~$ ")]


def test_what_the_shell_completed_is_likely_and_what_cat_reads_is_input():
    detector = Detector(80, 24)
    shell(detector)
    typed(detector, 1, b"cat R")
    detector.input(1, b"\t")
    detector.output(1, b"EADME ")
    run(detector, 2, b"")
    shell(detector, 3)
    run(detector, 4, b"cat")
    typed(detector, 5, b"a note")
    detector.input(5, b"\r")
    detector.output(5, b"\r\n")
    found = detector.finish()
    assert [(c.content, c.confidence) for c in found] == [
        ("cat README", Confidence.LIKELY),
        ("cat", Confidence.EXACT),
        ("a note", Confidence.INPUT),
    ]


def test_a_password_is_told_without_its_text():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"sudo id", b"[sudo] password for alice: ")
    typed(detector, 2, b"hunter2", echo=False)
    detector.input(2.5, b"\r")
    detector.output(2.6, b"\r\nuid=0\r\n")
    shell(detector, 3)
    run(detector, 4, b"ls")
    found = detector.finish()
    assert [c.content for c in found] == ["sudo id", "[unechoed input]", "ls"]
    assert found[1] == Command("[unechoed input]", Confidence.UNECHOED, 2.5, "[sudo] password for alice: ")


def test_a_password_typed_before_it_is_asked_for_and_echoed_by_the_kernel_is_not_kept():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"sudo id")
    typed(detector, 1.1, b"hunter2")
    detector.input(1.2, b"\r")
    detector.output(1.2, b"\r\n")
    detector.output(1.5, b"[sudo] password for alice: ")
    assert "hunter2" not in str(detector.take(1.6) + detector.finish())


@pytest.mark.parametrize("question", [b"Password: ", b"PIN: "])
def test_a_password_typed_in_whole_before_the_question_in_its_row_is_not_kept(question):
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"login")
    typed(detector, 1.1, b"hunter2")
    detector.output(1.15, question)
    detector.input(1.2, b"\r")
    detector.output(1.3, b"\r\n" + BEGIN + b"$ ")
    found = detector.take(1.4) + detector.finish()
    assert [c.content for c in found] == ["login", "[unechoed input]"]


def test_a_password_typed_while_the_echo_of_the_command_is_still_to_come_is_not_kept():
    detector = Detector(80, 24)
    detector.output(0, b"$ ")
    run(detector, 0.5, b"pwd", b"$ ")
    detector.output(0.9, b"getpass 'Password: ")
    detector.input(0.9, b"getpass 'Password: '\r")
    typed(detector, 1, b"hunter2", echo=False)
    detector.input(1.1, b"\r")
    detector.output(1.2, b"'\r\nhunter2\r\nPassword: \r\n$ ")
    assert "hunter2" not in str(detector.take(1.6) + detector.finish())


def test_a_line_is_taken_once_it_can_not_be_continued():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"for i in a b; do")
    shell(detector, 1, prompt=b"> ")
    assert detector.take(1.1) == []
    assert detector.take(9) == []  # the shell still asks for the rest
    run(detector, 10, b"ls")
    shell(detector, 10, prompt=b"> ")
    run(detector, 11, b"done")
    shell(detector, 11)
    assert [c.content for c in detector.take(13)] == ["for i in a b; do\nls\ndone"]
    assert detector.finish() == []


@pytest.mark.parametrize(
    ("prompt", "kept"), [(b"Password: ", False), (b"API token: ", False), (b"secrets:~> ", True), (b"Login: ", True)]
)
def test_an_answer_to_a_question_for_a_secret_is_not_kept_though_it_was_echoed(prompt, kept):
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"login")
    detector.output(1, prompt)
    typed(detector, 2, b"hunter2")
    detector.input(2, b"\r")
    detector.output(2, b"\r\n")
    assert ("hunter2" in str(detector.finish())) is kept


@pytest.mark.parametrize(("prompt", "run_too"), [(b"> ", False), (b"dquote> ", False), (b"ftp> ", True)])
def test_a_command_whose_rest_was_never_typed_was_not_run(prompt, run_too):
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"ls")
    shell(detector, 1)
    run(detector, 2, b"ftp")
    shell(detector, 2, prompt=prompt)
    assert [c.content for c in detector.finish()] == ["ls", "ftp"][: 1 + run_too]


def test_the_rows_of_a_command_in_a_shell_that_asks_where_the_cursor_is_are_commands_of_their_own():
    detector = Detector(80, 24)
    detector.output(0, b"~ # \x1b[6n")
    for at, line, after in [(1, b"echo one \\", b"> \x1b[6n"), (2, b"two", b"one two\r\n~ # \x1b[6n")]:
        typed(detector, at, line)
        detector.input(at, b"\r")
        detector.output(at, b"\r\n" + after)
    assert [(c.prompt, c.content) for c in detector.finish()] == [("~ # ", "echo one \\"), ("> ", "two")]


def test_keys_that_a_pager_took_are_no_part_of_the_next_line():
    detector = Detector(80, 24)
    detector.output(0, b"$ ")
    for at, line, after in [(1, b"more a", b"--More--(5%)"), (2.2, b"ls", b"a\r\n$ ")]:
        typed(detector, at, line)
        detector.input(at, b"\r")
        detector.output(at, b"\r\n" + after)
        if at == 1:
            typed(detector, 2, b" q", echo=False)
            detector.output(2, b"\r\x1b[K\r\n$ ")
    assert [c.content for c in detector.finish()] == ["more a", "ls"]


def test_a_prompt_that_is_shown_when_the_line_is_half_typed():
    detector = Detector(80, 24)
    shell(detector, prompt=b"web ~> ")
    run(detector, 1, b"clear", b"\x1b[H\x1b[2J")
    detector.output(1, BEGIN)
    typed(detector, 1.3, b"ech", echo=False)
    typed(detector, 1.8, b"o h", echo=False)
    detector.output(1.9, b"web ~> echo h")
    run(detector, 2, b"i")
    assert [c.content for c in detector.finish()] == ["clear", "echo hi"]


def test_lines_typed_whole_before_the_first_prompt_is_shown():
    detector = Detector(80, 24)
    detector.output(0, BEGIN)
    typed(detector, 0.7, b"echo hi", echo=False)
    detector.input(0.9, b"\r")
    typed(detector, 1, b"ls", echo=False)
    detector.output(1.1, b"web ~> echo hi\r\n")
    detector.input(1.2, b"\r")
    detector.output(1.3, END + b"hi\r\n" + BEGIN + b"web ~> ls\r\n" + END)
    assert [c.content for c in detector.finish()] == ["echo hi", "ls"]


def test_a_prompt_on_the_right_that_changes_while_a_line_is_edited():
    detector = Detector(40, 24)
    detector.output(0, BEGIN + b"$ " + b" " * 34 + b"[I]\x1b[34D\r\x1b[2C")
    typed(detector, 1, b"ls")
    detector.input(1, b"\x1b")
    detector.output(1, b"\r$ ls" + b" " * 32 + b"[N]\r\x1b[4C")
    detector.input(2, b"\r")
    detector.output(2, b"\r\n" + END)
    assert [c.content for c in detector.finish()] == ["ls"]


def test_typed_ahead_before_the_first_prompt_beside_a_prompt_on_the_right():
    detector = Detector(60, 24)
    typed(detector, 0.1, b"pwd")
    detector.input(0.2, b"\r")
    detector.output(0.2, b"\r\n" + BEGIN)
    line = b"~/proj> pwd" + b" " * 40 + b"21:06"
    detector.output(0.5, line + b"\r\n" + END + b"/root\r\n" + BEGIN + b"~/proj> \x1b[s" + b" " * 43 + b"21:07\x1b[u")
    run(detector, 2, b"ls")
    assert [c.content for c in detector.finish()] == ["pwd", "ls"]


def test_a_history_expansion_that_is_shown_to_be_edited_was_not_run_yet():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"echo a")
    shell(detector, 1)
    run(detector, 2, b"!echo")
    shell(detector, 2, prompt=b"$ echo a")
    run(detector, 3, b" b")
    assert [c.content for c in detector.finish()] == ["echo a", "echo a b"]


def test_a_history_expansion_that_is_only_printed_was_not_run():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"echo a")
    shell(detector, 1)
    run(detector, 2, b"!!:p", b"echo a\r\n")
    shell(detector, 3)
    assert [c.content for c in detector.finish()] == ["echo a"]


def test_a_history_expansion_that_failed_was_not_run():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"!nothing", b"bash: !nothing: event not found\r\n")
    shell(detector, 2)
    run(detector, 3, b"ls")
    run_before = detector.finish()
    assert [c.content for c in run_before] == ["ls"]


def test_nothing_of_a_full_screen_program_is_a_command():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"vim x", b"\x1b[?1049h\x1b[Htext")
    typed(detector, 2, b":!id\r")
    detector.output(3, b"\x1b[?1049l")
    shell(detector, 3)
    run(detector, 4, b"ls")
    assert [c.content for c in detector.finish()] == ["vim x", "ls"]


def test_after_a_flood_commands_are_found_again():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"cat big")
    for _ in range(64):
        detector.output(2, b"0123456789\r\n" * 20_000)
    shell(detector, 3)
    run(detector, 4, b"ls")
    assert [(c.content, c.degraded) for c in detector.finish()] == [("cat big", False), ("ls", False)]


def test_what_was_typed_into_a_flood_is_given_up_and_said():
    detector = Detector(80, 24)
    shell(detector)
    run(detector, 1, b"cat big")
    typed(detector, 2, b"rm x", echo=False)
    detector.input(2, b"\r")
    for _ in range(BUDGET // 10_000 + 10):
        detector.output(2, b"0123456789" * 1000)
    detector.output(3, b"\r\n")
    shell(detector, 3)
    run(detector, 4, b"ls")
    run(detector, 5, b"id")
    assert [(c.content, c.degraded) for c in detector.finish() if c.content == "ls"] == [("ls", True)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_make_no_difference(size):
    output = BEGIN + b"\x1b[32m$\x1b[0m " + "日本".encode() + b"\r\n" + END + b"ok\r\n"
    detector = Detector(80, 24)
    for at in range(0, len(BEGIN) + 11, size):
        detector.output(1, output[: len(BEGIN) + 11][at : at + size])
    for key in ("日", "本"):
        for byte in key.encode():
            detector.input(2, bytes([byte]))
    rest = output[len(BEGIN) + 11 :]
    detector.input(2, b"\r")
    for at in range(0, len(rest), size):
        detector.output(3, rest[at : at + size])
    assert detector.finish() == [Command("日本", Confidence.EXACT, 2, "$ ")]


PIECES = [
    b"\r",
    b"\n",
    b"\x03",
    b"\x04",
    b"\x1a",
    b"\x7f",
    b"\x15",
    b"\x1b[A",
    b"\x1b[200~",
    b"\x1b[201~",
    b"ls",
    b"!!",
    b"^a^b",
]
PIECES += [
    BEGIN,
    END,
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?1h",
    b"\x1b[?1l",
    b"$ ",
    b"> ",
    b"Password: ",
    b"\x1bc",
    b"\r\n",
]
PIECES += [
    b"\xff\xc3",
    "日\u0301".encode(),
    b"\x1b[2;3r",
    b"\x1b[H",
    b"\x1b[2J",
    b"[0] 0:bash",
    b"\x1b[",
    b"\x1b]0;",
    b"x" * 90,
]
HAPPENING = st.tuples(
    st.sampled_from("iiiooooor"), st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=8)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(HAPPENING, max_size=40), st.sampled_from([0, 2, 20, 80, 2**31]))
def test_nothing_that_is_typed_or_printed_makes_it_fail(happenings, columns):
    detector = Detector(columns, 24)
    for at, (kind, pieces) in enumerate(happenings):
        data = b"".join(pieces)
        if kind == "i":
            detector.input(at, data)
        elif kind == "o":
            detector.output(at, data)
        else:
            detector.resize(at, len(data), len(pieces))
        for command in detector.take(at):
            assert isinstance(command, Command)
    detector.finish()


@pytest.mark.parametrize("data", [b"typed without end", b"line\r", b"\x1b[200~", b"\x1b]", b"ls\r" * 50, b"\x00"])
def test_what_is_typed_without_end_is_not_kept(data):
    detector = Detector(80, 24)
    tracemalloc.start()
    for at in range(200):
        detector.input(at, data * 20)
        detector.output(at, b"x")
        detector.take(at)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 8 << 20
