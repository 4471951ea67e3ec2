"""Who may look at a recording, and that the log knows."""

import asyncio
import json
from pathlib import Path

import pytest

from bastion.audit.database import create_engine, upgrade
from bastion.audit.search import Search
from bastion.audit.sessions import SessionRows
from bastion.cli import recordings
from bastion.cli.viewer import Viewer
from bastion.config import Config, load_config
from bastion.errors import BastionError
from bastion.model import Address, Container, ContainerState
from bastion.recording.asciicast import Header, RecordingError, encode_header, encode_text
from tests.audit.test_search import typed
from tests.audit.test_sessions import end

SESSIONS = {"a1": "web", "a2": "shop"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text("auth: {local: {}}\nbastion_id: b1\n")
    config = load_config(tmp_path / "config.yaml")
    day = config.recording.folder / "2024/01/02"
    day.mkdir(parents=True)
    for session_id, app in SESSIONS.items():
        lines = [encode_text(1, "i", "ls\r"), encode_text(2, "i", "x"), encode_text(3, "i", "\r")]
        (day / f"{session_id}.cast").write_bytes(encode_header(Header(session_id, "alice", app, 0)) + b"".join(lines))
    asyncio.run(_fill(config))
    return config


async def _fill(config: Config) -> None:
    await upgrade(config.database)
    engine = create_engine(config.database)
    async with SessionRows(engine, "b1") as rows:
        for session_id, app in SESSIONS.items():
            container = Container("e", "f00d", "n", "i", {}, ContainerState.RUNNING, Address(app, "worker", 1))
            row = {"session_id": session_id, "connection_id": "c", "user": "alice", "source_ip": "192.0.2.7"}
            await rows.begin(**row, container=container, terminal=True, command=None)
    await end(engine, "a2", "ended")
    await engine.dispose()


def viewed(config: Config) -> list[tuple[str, str, str]]:
    assert config.audit.file is not None
    lines = config.audit.file.read_text().splitlines() if config.audit.file.exists() else []
    events = [event for event in map(json.loads, lines) if event["event"] == "recording.viewed"]
    return [(event["user"], event["session_id"], event["how"]) for event in events]


def appear(monkeypatch: pytest.MonkeyPatch, viewer: Viewer) -> None:
    """Become another person: that of the test can see all."""

    async def who(config: Config) -> Viewer:
        return viewer

    monkeypatch.setattr(recordings, "viewer", who)


def test_an_owner_sees_the_sessions_of_their_apps_only(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    appear(monkeypatch, Viewer("dave", frozenset({"web"})))
    assert recordings.look(config, "a1", "play").header.address == "web"
    with pytest.raises(BastionError, match=r"no session begins with a2$"):
        recordings.look(config, "a2", "play")
    assert viewed(config) == [("dave", "a1", "play")]


def test_an_auditor_sees_all_also_without_a_database(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    appear(monkeypatch, Viewer("carol", None))

    async def away(*_: object) -> None:
        raise BastionError("the database does not answer")

    monkeypatch.setattr(Search, "session", away)
    looked = recordings.look(config, "a2", "export")
    assert looked.header.address == "shop"
    assert looked.goes_on()
    assert viewed(config) == [("carol", "a2", "export")]


def test_what_can_not_be_logged_is_not_shown(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(*_: object, **__: object) -> None:
        raise BastionError("the log is full")

    monkeypatch.setattr(recordings, "tell", tell)
    with pytest.raises(BastionError, match="the log is full"):
        recordings.look(config, "a1", "play")


def test_what_is_not_there_was_not_seen(config: Config) -> None:
    with pytest.raises(RecordingError):
        recordings.look(config, "b", "play")
    assert viewed(config) == []


def test_a_session_goes_on_while_its_row_says_so(config: Config) -> None:
    assert [recordings.look(config, session_id, "watch").goes_on() for session_id in SESSIONS] == [True, False]


async def _typed(config: Config) -> None:
    engine = create_engine(config.database)
    for at in (7.5, 2.25):
        await typed(engine, "a1", "alice", "web.worker.1", "ls", at=at)
    await engine.dispose()


def test_the_commands_that_are_jumped_to_are_those_of_the_database(config: Config) -> None:
    asyncio.run(_typed(config))
    assert list(recordings.look(config, "a1", "play").commands()) == [2.25, 7.5]
    assert list(recordings.look(config, "a2", "play").commands()) == [1, 3]


def test_without_a_better_list_each_enter_is_a_command(config: Config) -> None:
    assert list(recordings.look(config, "a1", "play").commands()) == [1, 3]
