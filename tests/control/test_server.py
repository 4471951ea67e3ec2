import json
import stat

import pytest

from bastion.audit.events import Event
from bastion.config import Config
from bastion.control import client
from bastion.control.protocol import LINE_LIMIT, NAME, socket_in
from bastion.control.server import ControlServer
from bastion.errors import ConfigError
from tests.control.conftest import FakeSessions, events, raw


async def test_the_socket_is_for_the_bastion_only(bastion: ControlServer, config: Config) -> None:
    status = (config.state_folder / NAME).lstat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\n",
        b"no json\n",
        b"[]\n",
        b"[" * 60_000 + b"\n",
        b'{"do": "tell", "event": "session.start", "fields": {}}\n',
        b'{"do": "tell", "event": "config.reloaded", "fields": {}}\n',
        b'{"do": "tell", "event": "audit.searched", "fields": {"user": "x"}}\n',
        b'{"do": "tell", "event": "audit.searched", "fields": 5}\n',
        b'{"do": "tell", "event": ["audit.searched"], "fields": {}}\n',
        b'{"do": "tell", "event": "audit.searched", "fields":'
        b' {"user": "x", "what": "", "filters": {}, "time": "2020"}}\n',
        b'{"do": "kill"}\n',
        b'{"do": "apps", "user": "x", "groups": 5}\n',
        b'{"do": "eval"}\n',
    ],
)
async def test_what_is_no_request_is_refused_in_one_printable_line(
    bastion: ControlServer, config: Config, request_: bytes
) -> None:
    answer = json.loads(await raw(config, request_))
    assert set(answer) == {"error"}
    assert answer["error"].isprintable()
    await client.tell(config, Event.RECORDING_VIEWED, user="carol", session_id="s1")
    assert [event["event"] for event in events(config)] == ["recording.viewed"]


async def test_a_line_without_end_is_given_up(bastion: ControlServer, config: Config) -> None:
    assert await raw(config, b"x" * (2 * LINE_LIMIT)) == b""
    assert await client.owned_apps(config, "bob", frozenset()) == frozenset()


async def test_what_a_crash_left_is_replaced(config: Config, sessions: FakeSessions) -> None:
    config.state_folder.mkdir()
    with socket_in(config.state_folder) as (left, path):
        left.bind(path)
    left.close()
    async with ControlServer(config.state_folder, None, sessions, lambda _: ["web"]):  # type: ignore[arg-type] # unused
        assert await client.owned_apps(config, "bob", frozenset()) == {"web"}
    assert not (config.state_folder / NAME).exists()


async def test_where_it_can_not_be_is_an_error(config: Config, sessions: FakeSessions) -> None:
    config.state_folder.mkdir()
    (config.state_folder / NAME).mkdir()
    with pytest.raises(ConfigError, match=r"state_folder: .*control\.sock can not be made: Is a directory"):
        async with ControlServer(config.state_folder, None, sessions, lambda _: ()):  # type: ignore[arg-type] # unused
            pass
