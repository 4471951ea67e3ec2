"""How much of what was run is found, and how much of what is found was run: recorded sessions of real shells."""

import pytest

from bastion.model import Confidence
from tests.commands.scoring import SESSIONS, Score, delayed, judge, load, replay, split

RECORDED = [load(path) for path in sorted(SESSIONS.glob("*.jsonl.gz"))]
# Typed at a shell after `stty -echo`: never shown, so never stored, so never right.
ECHOING = [(header, events) for header, events in RECORDED if header["class"] != "sttyecho"]


@pytest.mark.parametrize(
    ("name", "path", "tolerance", "every"),
    [
        ("plain", lambda events: events, 0.0, 1),
        ("60 ms", lambda events: delayed(events, 0.06), 0.5, 1),
        ("150 ms", lambda events: delayed(events, 0.15), 0.5, 1),
        ("byte by byte", split, 0.5, 3),
    ],
)
def test_lines_are_found_to_the_letter(name, path, tolerance, every):
    score = Score()
    for header, events in ECHOING[::every]:
        judge(header, replay(header, path(events)).commands, score)
    assert score.wanted > 300
    assert score.precision >= 99.7 - tolerance, (name, score)
    assert score.recall >= 99.0 - tolerance, (name, score)
    assert score.leaks == 0, name


def test_what_was_typed_without_echo_is_told_and_never_shown():
    for header, events in RECORDED:
        found = replay(header, events).found
        for secret in header["secrets"]:
            assert not any(secret in command.content or secret in command.prompt for command in found), header["id"]
        if header["class"] == "password":
            assert any(command.confidence is Confidence.UNECHOED for command in found), header["id"]


def test_every_command_has_the_prompt_and_the_time_of_its_enter():
    header, events = load(SESSIONS / "plain-bash.jsonl.gz")
    enters = [t for t, kind, data in events if kind == "i" and b"\r" in data]
    found = replay(header, events).found
    assert len(found) == len(header["truth"])
    assert [command.at for command in found] == enters[: len(found)]
    assert all(command.prompt.endswith(("# ", "$ ")) for command in found)
    assert {command.confidence for command in found} == {Confidence.EXACT}
