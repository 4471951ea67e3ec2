import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bastion.audit.events import Event
from bastion.config import Config
from bastion.control import client
from bastion.control.lock import lock, make_folder
from bastion.control.server import ControlServer
from bastion.errors import BastionError, ConfigError
from tests.control.conftest import FakeSessions, events

FILTERS = {"user": "eve\x1b[2J", "app": None}


async def searched(config: Config, what: str = "commands") -> None:
    await client.tell(config, Event.AUDIT_SEARCHED, user="carol", what=what, filters=FILTERS)


async def test_the_bastion_that_runs_writes_the_event(
    bastion: ControlServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AuditLog", None)  # this process is not to write
    await searched(config)
    (event,) = events(config)
    assert event | {"time": "", "id": "", "prev": "", "seq": 0} == {
        "prev": "",
        "seq": 0,
        "time": "",
        "event": "audit.searched",
        "id": "",
        "bastion_id": "b1",
        "user": "carol",
        "what": "commands",
        "filters": FILTERS,
    }


async def test_where_none_runs_the_command_line_writes_itself(config: Config) -> None:
    await searched(config)
    assert [event["event"] for event in events(config)] == ["audit.searched"]
    assert stat.S_IMODE(config.state_folder.stat().st_mode) == 0o700


def test_one_writer_at_a_time(config: Config) -> None:
    """Processes that search at once, while no bastion runs."""
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom bastion.config import load_config\n"
        "from tests.control.test_client import searched\n"
        "asyncio.run(searched(load_config(Path(sys.argv[1])), sys.argv[2]))\n"
    )
    path = config.state_folder.parent / "config.yaml"
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", script, path, str(n)], cwd=root) for n in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert {event["what"] for event in events(config)} == {"0", "1", "2", "3"}


async def test_a_bastion_that_is_just_starting_is_waited_for(config: Config, sessions: FakeSessions) -> None:
    make_folder(config.state_folder)
    written: list[Event] = []

    class Log:
        async def write(self, event: Event, _fields: object) -> None:
            written.append(event)

    with lock(config.state_folder) as mine:
        assert mine
        asking = asyncio.create_task(searched(config))
        await asyncio.sleep(3 * client.RETRY)
        assert not asking.done()
        async with ControlServer(config.state_folder, Log(), sessions, lambda _: ()):  # type: ignore[arg-type] # a log
            await asking
    assert written == [Event.AUDIT_SEARCHED]


async def test_one_that_never_answers_is_an_error(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAIT", 0.3)
    make_folder(config.state_folder)
    with lock(config.state_folder), pytest.raises(BastionError, match="a bastion runs and does not answer"):
        await searched(config)


async def test_a_log_that_can_not_be_written_is_an_error(config: Config) -> None:
    assert config.audit.file is not None
    config.audit.file.mkdir()
    with pytest.raises(ConfigError, match=r"the audit log can not be written: .*Is a directory"):
        await searched(config)


async def test_what_root_makes_belongs_to_the_bastion(config: Config) -> None:
    assert os.geteuid() == 0, "the tests are run as root"
    above = config.state_folder.parent
    with contextlib.ExitStack() as folders:
        for folder in (above, *above.parents):  # so that the other account comes through to it
            if folder.stat().st_mode & 0o001 == 0:
                mode = stat.S_IMODE(folder.stat().st_mode)
                folder.chmod(mode | 0o001)
                folders.callback(folder.chmod, mode)
        for path in (above, *above.iterdir()):
            os.chown(path, 65534, 65534)
        await searched(config)
        assert {path.stat().st_uid for path in above.rglob("*")} == {65534}
        assert os.geteuid() == 0


async def test_a_session_is_ended(bastion: ControlServer, config: Config, sessions: FakeSessions) -> None:
    await client.kill(config, "s1", by="carol", why="it is late")
    assert sessions.killed == [("s1", "carol", "it is late")]
    with pytest.raises(BastionError, match="session s2 does not run on this bastion"):
        await client.kill(config, "s2", by="carol", why="it is late")


async def test_the_apps_of_an_owner(bastion: ControlServer, config: Config) -> None:
    assert await client.owned_apps(config, "alice", frozenset({"dev"})) == {"web"}
    assert await client.owned_apps(config, "bob", frozenset({"dev"})) == frozenset()


async def test_what_only_a_running_bastion_can_do(config: Config) -> None:
    make_folder(config.state_folder)
    with pytest.raises(BastionError, match="no bastion runs here that could be asked"):
        await client.kill(config, "s1", by="carol", why="it is late")
