import io
from collections.abc import Callable, Sequence

import pytest

from bastion.model import Stream
from bastion.recording.asciicast import (
    Header,
    Reader,
    RecordingError,
    encode_binary,
    encode_header,
    encode_text,
    text_of,
)
from bastion.recording.escapes import Filter
from bastion.recording.player import JUMP, POLL, Player, entered

RESET = Filter().reset()
CLEARED = b"\x1b[H\x1b[2J"


class Viewer:
    """Someone who presses keys at moments of a clock that only waiting moves, and notes what was to be seen when."""

    def __init__(self, *keys: tuple[float, str]) -> None:
        self.now = 0.0
        self.keys = list(keys)
        self.seen: list[tuple[float, bytes]] = []
        self.sizes: list[tuple[float, int, int]] = []
        self.states: list[str] = []
        self.between: Callable[[float], None] = lambda now: None

    def write(self, data: bytes) -> None:
        self.seen.append((round(self.now, 3), data))

    def key(self, seconds: float) -> str | None:
        self.between(self.now)
        if self.keys and self.keys[0][0] <= self.now + seconds:
            at, key = self.keys.pop(0)
            self.now = max(self.now, at)
            return key
        self.now += seconds
        return None

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((round(self.now, 3), columns, rows))

    def tell(self, state: str) -> None:
        if self.states[-1:] != [state]:
            self.states.append(state)

    @property
    def output(self) -> bytes:
        return b"".join(data for _, data in self.seen)

    @property
    def times(self) -> list[tuple[float, str]]:
        """What was shown when, without the resets."""
        return [(at, data.decode()) for at, data in self.seen if data and RESET not in data]


def cast(*lines: bytes, terminal: bool = True) -> bytes:
    return encode_header(Header("s", "alice", "web", 0, 90, 25, terminal=terminal)) + b"".join(lines)


LETTERS = cast(*(encode_text(number, "o", letter) for number, letter in enumerate("abcdefghijklmnopqrst")))


def play(
    data: bytes,
    viewer: Viewer,
    *,
    at: float = 0.0,
    speed: float = 1.0,
    idle_limit: float | None = None,
    marks: Sequence[float] = (),
) -> str | None:
    player = Player(
        lambda: Reader(io.BytesIO(data)),
        viewer,
        speed=speed,
        idle_limit=idle_limit,
        marks=lambda: marks,
        clock=lambda: viewer.now,
    )
    return player.play(at)


@pytest.mark.parametrize(
    ("speed", "idle_limit", "times"),
    [(1.0, None, [0, 2, 12]), (2.0, None, [0, 1, 6]), (2.0, 3.0, [0, 1, 2.5]), (1.0, 0.0, [0, 0, 0])],
)
def test_plays_output_at_its_speed(speed: float, idle_limit: float | None, times: list[float]) -> None:
    viewer = Viewer()
    data = cast(
        encode_text(0, "o", "$ "),
        encode_text(1, "i", "typed"),
        encode_text(2, "o", "ls"),
        encode_text(12, "x", "***"),
        encode_text(12, "o", "\n"),
    )
    assert play(data, viewer, speed=speed, idle_limit=idle_limit) is None
    assert viewer.output == b"$ ls\n" + RESET
    assert [at for at, _ in viewer.times] == times


def test_sizes_are_shown_when_they_change_and_nonsense_is_not() -> None:
    viewer = Viewer()
    sizes = [(1.0, "100x40"), (2.0, "0x5"), (2.0, "9x99999"), (2.0, "x\x1b[8;1;1t")]
    play(cast(*(encode_text(at, "r", size) for at, size in sizes)), viewer)
    assert viewer.sizes == [(0, 90, 25), (1, 100, 40)]
    assert viewer.states[-1] == "0:02  100x40"


def test_a_session_without_a_terminal() -> None:
    viewer = Viewer()
    data = cast(
        encode_text(0, "o", text_of("中".encode()[:1])),
        encode_text(0, "e", "error\n"),
        encode_text(0, "o", text_of("中\n".encode()[1:])),
        encode_binary(0, Stream.OUTPUT, b"\0bin\x1b]0;t\x07ary"),
        terminal=False,
    )
    play(data, viewer)
    assert viewer.output == "error\n中\nbinary".encode() + RESET
    assert viewer.sizes == []


def test_begins_where_it_is_told_to_with_all_that_was_shown_until_then() -> None:
    viewer = Viewer()
    play(LETTERS, viewer, at=16.5)
    assert viewer.times == [(0, letter) for letter in "abcdefghijklmnopq"] + [(0.5, "r"), (1.5, "s"), (2.5, "t")]


def test_pause_and_step() -> None:
    viewer = Viewer((1.5, " "), (60, "."), (61, "."), (70, " "))
    play(LETTERS, viewer)
    assert viewer.times[:6] == [(0, "a"), (1, "b"), (60, "c"), (61, "d"), (71, "e"), (72, "f")]
    assert "0:01  90x25  paused" in viewer.states


def test_a_pause_in_the_middle_of_a_wait_keeps_the_rest_of_it() -> None:
    viewer = Viewer((1.75, " "), (10, " "))
    play(LETTERS, viewer)
    assert viewer.times[1:3] == [(1, "b"), (10.25, "c")]


def test_jumps() -> None:
    viewer = Viewer((2.5, "right"), (3, "left"), (3.1, "q"))
    play(LETTERS, viewer)
    assert viewer.times == [
        *[(0, "a"), (1, "b"), (2, "c")],
        *[(2.5, letter) for letter in "defgh"],
        *[(3, letter) for letter in "abcd"],  # from 8 back
    ]
    assert JUMP == 5.0
    assert viewer.output.count(RESET + CLEARED) == 1
    assert viewer.output.endswith(RESET)


def test_from_command_to_command() -> None:
    marks = [3.0, 4.0, 10.0]
    viewer = Viewer((0.5, "n"), (0.6, "n"), (0.7, "n"), (0.8, "n"), (0.9, " "), (1, "p"), (2, "p"), (3, "p"), (4, "p"))
    viewer.keys.append((5, "q"))
    play(LETTERS, viewer, marks=marks)
    shown = [viewer.states[0], *viewer.states]
    assert [state.split()[0] for state in shown if "paused" in state] == ["0:10", "0:04", "0:03", "0:00"]
    assert [text for at, text in viewer.times if at < 1] == [*"abcdefghijk"]


def test_enter_marks_a_command_where_nobody_knows_better() -> None:
    lines = [
        encode_text(1, "i", "ls\r"),
        encode_text(2, "p", "***\r"),
        encode_text(3, "i", "x"),
        encode_text(4, "i", "\r"),
    ]
    assert entered(Reader(io.BytesIO(cast(*lines)))) == [1, 4]


def test_speed_by_keys() -> None:
    viewer = Viewer((0.5, "+"), (1.25, "-"), (1.25, "-"))
    play(LETTERS, viewer)
    # half a second at 1, then 0.75 at 2 is 2.0; then half as fast
    assert viewer.times[:5] == [(0, "a"), (0.75, "b"), (1.25, "c"), (3.25, "d"), (5.25, "e")]
    assert any("2x" in state for state in viewer.states)


class Growing(io.BytesIO):
    """A file that others append to."""

    def grow(self, data: bytes) -> None:
        at = self.tell()
        self.seek(0, io.SEEK_END)
        self.write(data)
        self.seek(at)


def following(viewer: Viewer, file: Growing, goes_on: Callable[[], bool], at: float) -> str | None:
    return Player(lambda: Reader(file), viewer, goes_on=goes_on, clock=lambda: viewer.now).play(at)


def test_follows_a_session_to_its_end_each_event_when_it_comes() -> None:
    file, viewer = Growing(cast(encode_text(1, "o", "a"), encode_text(5, "o", "b"))), Viewer()
    coming = [(100.0, encode_text(105, "o", "c")[:9]), (103, encode_text(105, "o", "c")[9:])]
    coming += [(104, encode_text(106, "o", "d") + encode_text(106.5, "o", "e")), (110, encode_text(112, "z", "0"))]

    def between(now: float) -> None:
        while coming and coming[0][0] <= now:
            file.grow(coming.pop(0)[1])

    viewer.between = between
    assert following(viewer, file, lambda: True, float("inf")) is None
    shown = viewer.times
    assert shown[:2] == [(0, "a"), (0, "b")]
    assert [text for _, text in shown[2:]] == ["c", "d", "e"]
    for (at, _), expected in zip(shown[2:], (103, 104, 104.5), strict=True):
        assert expected <= at <= expected + 2 * POLL
    assert any(state.endswith("live") for state in viewer.states)
    assert viewer.now < 111


def test_follows_no_longer_than_the_session_goes_on() -> None:
    file, viewer = Growing(cast(encode_text(1, "o", "a"), b'[2.0, "o", "cut')), Viewer()
    answers = [True, True, False]
    assert "cut short" in (following(viewer, file, lambda: answers.pop(0), 0.0) or "")
    assert answers == []
    assert viewer.times == [(1, "a")]


def test_what_came_with_the_end_is_shown() -> None:
    file, viewer = Growing(cast(encode_text(1, "o", "a"))), Viewer()

    def goes_on() -> bool:
        if file.getvalue().endswith(b'"a"]\n'):
            file.grow(encode_text(2, "o", "b"))
        return False

    following(viewer, file, goes_on, 0.0)
    assert viewer.times == [(1, "a"), (2, "b")]


def test_the_terminal_is_reset_after_an_interrupt() -> None:
    def interrupt(now: float) -> None:
        if now:
            raise KeyboardInterrupt

    viewer = Viewer()
    viewer.between = interrupt
    with pytest.raises(KeyboardInterrupt):
        play(cast(encode_text(0, "o", "\x1b[?1049h\x1b[31m\x1b[?25l"), encode_text(9, "o", "never")), viewer)
    assert viewer.output.endswith(b"\x1b[?1049l" + RESET)
    assert b"never" not in viewer.output


def test_the_terminal_is_reset_after_a_broken_recording() -> None:
    viewer = Viewer()
    with pytest.raises(RecordingError, match="line 3"):
        play(cast(encode_text(0, "o", "x"), b"broken\n"), viewer)
    assert viewer.output == b"x" + RESET


def test_a_recording_cut_short_is_played_as_far_as_it_goes() -> None:
    viewer = Viewer()
    assert "cut short" in (play(cast(encode_text(0, "o", "x"), encode_text(0, "o", "y")[:-3]), viewer) or "")
    assert viewer.output == b"x" + RESET
