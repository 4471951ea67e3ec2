"""`bastion sessions grep PATTERN` and the text that is exported."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bastion.audit.database import upgrade
from bastion.config import load_config
from bastion.recording.asciicast import Header, encode_header, encode_text
from bastion.recording.files import compress
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two recordings, the earlier one compressed, of alice and bob."""
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    asyncio.run(upgrade(load_config(path).database))
    for session_id, day, user, address in (
        ("s1", "02", "alice", "web.worker.1"),
        ("s2", "03", "bob", "far/shop.eu.db.2"),
    ):
        folder = tmp_path / "recordings/2024/01" / day
        folder.mkdir(parents=True)
        shown = f"$ cat \x1b[1mpass\x1b[0mword-of-{user}\u202e\r\n"
        output = [encode_text(90.251, "o", shown), encode_text(95, "z", "0")]
        began = int(datetime(2024, 1, int(day), tzinfo=UTC).timestamp())
        header = encode_header(Header(session_id, user, address, began, terminal=True))
        (folder / f"{session_id}.cast").write_bytes(header + b"".join(output))
    compress(tmp_path / "recordings/2024/01/02/s1.cast")
    return path


def test_finds_what_was_on_the_screen_and_the_log_knows(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "grep", "PASSWORD-of", "--ignore-case", "-c", config)
    assert done.stdout.splitlines() == [
        r"s2 @ 1:30.26  $ cat password-of-bob\u202e",
        r"s1 @ 1:30.26  $ cat password-of-alice\u202e",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in (config.parent / "audit.jsonl").read_text().splitlines()]
    assert [(event["what"], event["filters"]) for event in events if event["event"] == "audit.searched"] == [
        ("recordings", {"pattern": "PASSWORD-of"})
    ]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--user", "alice"], ["s1"]),
        (["--app", "shop.eu"], ["s2"]),
        (["--app", "shop"], []),
        (["--since", "2024-01-03T00:00Z"], ["s2"]),
        (["--until", "2024-01-03T00:00Z"], ["s1"]),
        (["--since", "2024-01-02T00:00Z", "--until", "2024-01-04T00:00Z", "--user", "bob"], ["s2"]),
        (["--since", "2024-01-04T00:00Z"], []),
    ],
)
def test_of_the_sessions_that_are_wanted(bastion: Run, config: Path, filters: list[str], found: list[str]) -> None:
    done = bastion("sessions", "grep", "word", *filters, "-c", config)
    assert [line.split()[0] for line in done.stdout.splitlines()] == found
    assert done.returncode == (0 if found else 1)


def test_of_one_user_and_of_none(bastion: Run, config: Path) -> None:
    assert bastion("sessions", "grep", "word", "--user", "alice", "-c", config).stdout.startswith("s1 @ ")
    nothing = bastion("sessions", "grep", "nowhere", "-c", config)
    assert (nothing.stdout, nothing.stderr, nothing.returncode) == ("", "", 1)
    wrong = bastion("sessions", "grep", "(", "-c", config)
    assert wrong.returncode == 2
    assert re.search(r"no regular\s+.?\s*expression", wrong.stderr)


def test_what_can_not_be_read_is_said_and_the_rest_searched(bastion: Run, config: Path) -> None:
    (config.parent / "recordings/2024/01/03/s3.cast").write_bytes(b"broken\n")
    done = bastion("sessions", "grep", "word", "-c", config)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith("s3: not an asciicast header")
    assert done.returncode == 2


def test_a_recording_as_text(bastion: Run, config: Path) -> None:
    done = bastion("sessions", "export", "s1", "--format", "text", "-c", config)
    assert done.stdout == "1:30.26  $ cat password-of-alice\\u202e\n"
