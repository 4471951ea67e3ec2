"""What is recorded of the keys of real sessions, also over a slow line: no secret that was typed without echo."""

import pytest

from bastion.recording.asciicast import Code, text_of
from bastion.recording.redaction import Redactor
from tests.commands.scoring import SESSIONS, delayed, load, split

RECORDED = [load(path) for path in sorted(SESSIONS.glob("*.jsonl.gz"))]


def keys_in_clear(events):
    redactor, told = Redactor(), []
    for t, kind, data in events:
        if kind == "i":
            told += redactor.input(t, text_of(data))
        elif kind == "o":
            told += redactor.output(t, text_of(data))
    return "".join(text for code, text in [*told, *redactor.finish()] if code is Code.INPUT)


@pytest.mark.parametrize(
    ("path", "least"),
    [(lambda events: events, 0.4), (lambda events: delayed(events, 0.15), 0.4), (split, 0.4)],
    ids=["plain", "150 ms", "byte by byte"],
)
def test_no_secret_is_in_clear_and_most_keys_are(path, least):
    secrets = typed = shown = 0
    for header, events in RECORDED:
        clear = keys_in_clear(path(events))
        output = text_of(b"".join(data for _, kind, data in events if kind == "o"))
        for secret in header["secrets"]:
            if secret in output:  # typed before the echo was off, or at a question that shows it: it is on the screen
                continue
            secrets += 1
            assert secret not in clear, header["id"]
        typed += sum(len(data) for _, kind, data in events if kind == "i")
        shown += len(clear)
    assert secrets >= 20
    assert shown > least * typed, "else it would be easy"
