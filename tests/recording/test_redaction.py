"""A key that was not echoed is never told in clear; one that was, is."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bastion.recording.asciicast import WITHHELD, Code
from bastion.recording.redaction import MAX_PENDING, SETTLE, Redactor

P, I, X = (Code.PASSED_ON, WITHHELD), Code.INPUT, (Code.REDACTED, WITHHELD)  # noqa: E741
Step = tuple[str, str]


def typed(text: str) -> Step:
    return ("typed", text)


def shown(text: str) -> Step:
    return ("shown", text)


def keys(text: str, echo: str | None = None) -> list[Step]:
    """Each key alone, echoed at once as it is or, if `echo` is given, by that."""
    steps = []
    for key in text:
        steps += [typed(key), *([shown(key if echo is None else echo)] if echo != "" else [])]
    return steps


def tell(*steps: Step | list[Step], finish: bool = True) -> list[tuple[Code, str]]:
    redactor = Redactor()
    told: list[tuple[Code, str]] = []
    now = 0.0
    for step in [one for item in steps for one in (item if isinstance(item, list) else [item])]:
        kind, text = step
        now += float(text) if kind == "wait" else 0.01
        if kind != "wait":
            told += redactor.input(now, text) if kind == "typed" else redactor.output(now, text)
    return told + redactor.finish() if finish else told


def known(told: list[tuple[Code, str]]) -> str:
    """Input as the recording tells it."""
    return "".join(WITHHELD if code is Code.REDACTED else text for code, text in told if code is not Code.PASSED_ON)


PROMPT = shown("\x1b[?2004h\x1b]0;alice@web: ~\x07\x1b[01;32malice@web\x1b[00m:~$ ")
ENTER = [typed("\r"), shown("\x1b[?2004l\r\r\n")]


def test_a_line_of_bash() -> None:
    assert tell(PROMPT, keys("ls -la"), ENTER, finish=False) == [P, (I, "ls -la\r")]


def test_enter_is_told_before_it_is_passed_on() -> None:
    assert tell(PROMPT, keys("ls"), typed("\r"), finish=False)[-1] == (I, "ls\r")


def test_text_is_announced_before_it_is_passed_on_and_not_told() -> None:
    assert tell(PROMPT, typed("ls"), finish=False) == [P]


@pytest.mark.parametrize(
    "after",
    [
        "\r\n",  # read -s; echo
        "\r\nSorry, try again.\r\n[sudo] password for alice: ",
        "\r\nhunter2 is what you typed\r\n",  # after the newline it is no echo any more
        "\nWelcome\n",  # raw mode
        "Hello hunter2!\r\n",  # at once, but not where it was typed
        "hunter",  # nothing but its beginning
        "h u n t e r 2\r\n",
        "\x1b[1;1Hhunter2\r\n",
        "",
    ],
)
@pytest.mark.parametrize("prompt", ["[sudo] password for alice: ", "Password: ", ""])
def test_password_is_masked_and_its_length_hidden(prompt: str, after: str) -> None:
    for steps in ([typed("hunter2\r")], [typed("hunter2"), typed("\r")], [*keys("hunter2\r", echo="")]):
        told = tell(shown(prompt), steps, shown(after))
        assert known(told) == WITHHELD + "\r"
        longer = tell(
            shown(prompt), [typed(text.replace("hunter2", "hunter2hunter2")) for _, text in steps], shown(after)
        )
        assert [code for code, _ in longer] == [code for code, _ in told]


def test_keys_of_a_password_make_one_announcement() -> None:
    assert tell(shown("Password: "), keys("hunter2", echo=""), finish=False) == [P]


def test_password_feedback_in_asterisks_is_no_echo() -> None:
    assert known(tell(shown("Password: "), keys("hunter2", echo="*"), typed("\r"), shown("\r\n"))) == WITHHELD + "\r"


def test_password_with_corrections_is_masked_as_one() -> None:
    assert (
        known(tell(shown("Password: "), keys("hunt\x7f\x7fnter2\x7f3", echo=""), typed("\r"), shown("\r\n"))) == "***\r"
    )


def test_output_of_a_job_while_a_password_is_typed() -> None:
    steps = [typed("p"), shown("progress 10%\r"), typed("w"), shown("progress 20%\r"), typed("\r"), shown("\r\n")]
    assert known(tell(shown("Password: "), steps)) == WITHHELD + "\r"


def test_first_letters_that_a_program_prints_by_chance_unmask_nothing() -> None:
    steps = [typed("h"), shown("h"), typed("u"), shown("u"), *keys("nter2\r", echo=""), shown("\r\n")]
    assert known(tell(shown("Password: "), steps)) == WITHHELD + "\r"


def test_password_typed_ahead_of_its_prompt() -> None:
    told = tell(
        PROMPT, typed("sudo -s\rhunter2\r"), shown("sudo -s\x1b[?2004l\r\r\n"), shown("Password: "), shown("\r\n")
    )
    assert known(told) == "sudo -s\r" + WITHHELD + "\r"


def test_command_then_password_then_command() -> None:
    told = tell(
        PROMPT, keys("sudo id"), ENTER, shown("Password: "), keys("hunter2", echo=""), typed("\r"), shown("\r\n"),
        shown("uid=0(root)\r\n"), PROMPT, keys("ls"), ENTER,
    )  # fmt: skip
    assert known(told) == "sudo id\r" + WITHHELD + "\rls\r"


def test_a_password_after_a_prompt_in_raw_mode_does_not_mask_what_follows() -> None:
    told = tell(shown("Password: "), typed("hunter2\r"), shown("\n"), typed("ls"), shown("ls"), typed("\r"))
    assert known(told) == WITHHELD + "\rls\r"


def test_typed_ahead_behind_a_tab_is_masked_even_if_a_completion_reads_the_same() -> None:
    assert known(tell(PROMPT, typed("cat f\thunter2"), shown("cat fhunter2"))) == "cat f\t" + WITHHELD


def test_lines_piped_into_a_terminal_are_echoed_by_the_kernel() -> None:
    told = tell(typed("echo hi\nexit\n"), shown("echo hi\r\nexit\r\n"), PROMPT, shown("echo hi\r\nhi\r\n"))
    assert known(told) == "echo hi\nexit\n"


@pytest.mark.parametrize(
    "steps",
    [
        [typed("x"), shown("xfoo\b\b\b"), typed("y"), shown("yfoo\b\b\b")],  # readline, inside a line
        [typed("x"), shown("\x1b[1@x"), typed("y"), shown("\x1b[1@y")],
        [typed("x"), shown("\x1b[4mx\x1b[24m"), typed("y"), shown("\b\x1b[4mx\x1b[32my\x1b[39m")],  # zsh
        [typed("xy"), shown("x\x1b[3"), shown("2my")],  # a colour cut in two
        [typed("x"), shown("x\x1b[3"), typed("y"), shown("2my")],
        [typed("x"), shown("x \r"), typed("y"), shown("y")],  # right margin
        [typed("xy"), shown("x \ry")],
        [typed("xz\x7fy"), shown("xz\b \by")],  # kernel
        [typed("x"), shown("x"), typed("z"), shown("z"), typed("\x7f"), shown("\b\x1b[K"), typed("y"), shown("y")],
        [
            typed("x"),
            shown("\x1b[?25lx\x1b[24;63H1,2\x1b[1;3H\x1b[?25h"),
            typed("y"),
            shown("y\x1b[24;63H1,3\x1b[1;4H"),
        ],  # vim
    ],
)
def test_echo_as_programs_do_it(steps: list[Step]) -> None:
    told = tell(shown("$ "), steps, typed("\r"), finish=False)
    assert (Code.REDACTED, WITHHELD) not in told
    assert known(told).replace("z\x7f", "") == "xy\r"


def test_wide_combining_and_split_characters_echo() -> None:
    split = "中".encode().decode("ascii", "surrogateescape")
    told = tell(PROMPT, keys("ne\u0301 文"), typed(split[:1]), typed(split[1:]), shown("中"), keys("x"), ENTER)
    assert known(told) == "ne\u0301 文中x\r"


def test_bytes_that_are_no_text_echo() -> None:
    assert known(tell(PROMPT, typed("\udcff\udce4"), shown("\udcff\udce4"), ENTER)) == "\udcff\udce4\r"


def test_controls_and_complete_escape_sequences_are_told_at_once() -> None:
    for text in ("\x03", "\t", "\x1b[A", "\x1bOB", "\x1b[1;5C", "\x1b", "\x1bf", "\x1b[200~", "\x04"):
        assert tell(PROMPT, typed(text), finish=False) == [(I, text)]


def test_controls_wait_for_their_turn_but_are_announced() -> None:
    told = tell(shown("Password: "), typed("hunter2"), typed("\x1b[A"), finish=False)
    assert told == [P, (Code.PASSED_ON, "\x1b[A")]


def test_pasted_password_between_paste_marks() -> None:
    told = tell(shown("Password: "), typed("\x1b[200~hunter2\x1b[201~"), typed("\r"), shown("\r\n"))
    assert known(told) == "\x1b[200~" + WITHHELD + "\x1b[201~\r"


def test_completion_and_what_is_typed_after_it() -> None:
    told = tell(PROMPT, keys("cat f"), typed("\t"), shown("oo.txt "), keys("| wc"), ENTER)
    assert known(told) == "cat f\t| wc\r"


def test_a_key_of_less_does_not_mask_the_command_after_it() -> None:
    told = tell(typed("q"), shown("\r\x1b[K\x1b[?1l\x1b>\x1b[?1049l"), PROMPT, ("wait", "2.5"), keys("ls"), ENTER)
    assert known(told) == WITHHELD + "ls\r"


def test_what_is_not_echoed_in_time_is_told_masked_with_the_next_event() -> None:
    waited = ("wait", str(SETTLE + 1))
    assert tell(typed("j"), waited, shown("x"), finish=False)[-1] == X
    assert tell(typed("j"), waited, typed("\t"), finish=False)[-2:] == [X, (I, "\t")]


def test_a_pause_in_a_password_gives_nothing_away() -> None:
    told = tell(shown("Password: "), typed("hunt"), ("wait", "5"), typed("er2\r"), shown("\r\n"))
    assert known(told) == WITHHELD + WITHHELD + "\r"


def test_pending_text_is_bounded() -> None:
    redactor = Redactor()
    told = []
    for _ in range(3000):
        told += redactor.input(0, "secret")
        assert redactor._size <= MAX_PENDING
        assert sum(len(getattr(item, "text", item)) for item in redactor._queue) == redactor._size
    assert all(code is not Code.INPUT for code, _ in told)
    assert redactor.input(0, "s" * 100_000)[-2:] == [P, X]


def test_a_flood_of_output_is_not_looked_through() -> None:
    flood = "some text\r\n" * 6000
    for before in ("", "q", "l\r"):
        redactor = Redactor()
        redactor.input(0, before)
        redactor.output(0, "\x1b[2J" + flood)
        began = time.thread_time()
        for _ in range(1000):
            redactor.output(0, flood)
        assert time.thread_time() - began < 0.1, before  # 66 MB


def test_escape_sequences_without_end_stop_the_search() -> None:
    redactor = Redactor()
    redactor.input(0, "x")
    for _ in range(200):
        redactor.output(0, "\x1b[31m" * 100)
    assert not redactor.watching
    redactor = Redactor()
    redactor.input(0, "x")
    redactor.output(0, "\x1b]0;")
    for _ in range(200):
        redactor.output(0, "y" * 100)
    assert not redactor.watching


SECRET = "HUNTER42"
noise = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "\r\n",
                "\n",
                "\r",
                "\b",
                " \r",
                "\x1b[K",
                "\x1b[C",
                "\x1b[2D",
                "\x1b[1;1H",
                "\x1b[3",
                "1m",
                "\x1b]0;",
                "\x07",
            ]
        ),
        st.text("abcxyz $", max_size=8),
    ),
    max_size=4,
).map("".join)
secret_keys = st.text(SECRET, min_size=1, max_size=12)


@given(
    st.lists(
        st.tuples(st.sampled_from(["echoed", "secret", "noise", "enter", "wait"]), secret_keys, noise), max_size=25
    )
)
def test_no_secret_is_told_amid_any_output_without_it(script: list[tuple[str, str, str]]) -> None:
    steps: list[Step] = []
    for kind, secret, text in script:
        if kind == "echoed":
            steps += keys("some text")
        elif kind == "secret":
            steps += [typed(secret), shown(text)]
        elif kind == "enter":
            steps += [typed("\r"), shown(text)]
        elif kind == "wait":
            steps.append(("wait", str(len(text))))
        else:
            steps.append(shown(text))
    for code, text in tell(*steps):
        assert code is Code.INPUT or set(text) <= set("*\r")
        assert not set(text) & set(SECRET)


@given(st.lists(st.text(SECRET + " \r\n\b", max_size=6), min_size=7, max_size=7))
@example(list("HUNTER4"))
@example(["HUNTER4", *[""] * 6])
def test_a_secret_is_told_whole_or_not_at_all(outputs: list[str]) -> None:
    steps: list[Step] = []
    for key, text in zip(SECRET[:-1], outputs, strict=True):
        steps += [typed(key), shown(text)]
    # its last character is not shown
    told = tell(*steps, typed(SECRET[-1]), typed("\r"), shown("\r\n"))
    assert known(told) == WITHHELD + "\r"


@given(
    st.lists(
        st.one_of(st.text("ab 中é\x7f", min_size=1, max_size=6), st.sampled_from(["\r", "\t", "\x1b[A", "\x03"])),
        max_size=12,
    )
)
def test_nothing_is_lost_or_reordered(pieces: list[str]) -> None:
    """Of the keys, masked ones apart: what is told is what was typed."""
    told = known(tell(*[step for piece in pieces for step in (typed(piece), shown(piece.replace("\r", "\r\n")))]))
    rest = "".join(pieces)
    for part in told.split(WITHHELD):
        assert part in rest
        rest = rest[rest.index(part) + len(part) :]
    controls = [piece for piece in pieces if piece in ("\r", "\t", "\x1b[A", "\x03")]
    assert [c for c in told if c in "\r\t\x03"] == [c for piece in controls for c in piece if c in "\r\t\x03"]


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=12)), max_size=20))
def test_any_text_is_taken(script: list[tuple[bool, str]]) -> None:
    tell(*[typed(text) if is_input else shown(text) for is_input, text in script])


def test_ten_microseconds_a_key() -> None:
    redactor = Redactor()
    best = 1.0
    for _ in range(20):
        began = time.thread_time()
        for _ in range(100):
            redactor.input(0, "x")
            redactor.output(0, "x")
        redactor.input(0, "\r")
        redactor.output(0, "\r\n$ ")
        best = min(best, (time.thread_time() - began) / 101)
    assert best < 40e-6  # 10 µs on an idle machine; the rest is for a busy one
