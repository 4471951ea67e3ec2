"""Who may see what: the accounts are this machine's, of which `nobody` and `daemon` are no auditors by themselves."""

import json
import os
from pathlib import Path

import pytest

from bastion.audit.database import upgrade
from bastion.audit.search import Filters
from bastion.cli import viewer as viewer_module
from bastion.cli.viewer import Viewer, auditor, look, viewer
from bastion.config import Audit, Config, load_config
from bastion.errors import BastionError
from tests.audit.sections import others


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text("auth: {local: {}}\n")
    return load_config(tmp_path / "config.yaml")


def allowing(config: Config, **audit: object) -> Config:
    return config.model_copy(update={"audit": Audit(file=config.audit.file, **audit)})  # type: ignore[arg-type] # kinds


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)


async def test_root_without_sudo_sees_all(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await viewer(config) == Viewer("root", None)
    monkeypatch.setenv("SUDO_USER", "root")
    assert await viewer(config) == Viewer("root", None)


async def test_behind_sudo_it_is_the_caller(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "daemon")
    with pytest.raises(BastionError, match=r"daemon is no auditor \(audit\.auditors\)"):
        await viewer(config)
    for auditors in (["daemon"], ["x", "@daemon"]):
        assert await viewer(allowing(config, auditors=auditors)) == Viewer("daemon", None)
    for auditors in (["Daemon"], ["@daemons"], ["dae"], ["@root"]):
        with pytest.raises(BastionError, match="no auditor"):
            await viewer(allowing(config, auditors=auditors))


async def test_who_sets_sudo_user_by_themselves_is_still_themselves(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.state_folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 65534)  # else the files of the test could not be read
    monkeypatch.setenv("SUDO_USER", "root")
    with pytest.raises(BastionError, match="nobody is no auditor"):
        await viewer(allowing(config, auditors=["root", "daemon"]))
    os.chown(config.state_folder, 65534, -1)  # it is the bastion's own account
    assert await viewer(config) == Viewer("root", None)
    monkeypatch.delenv("SUDO_USER")
    assert await viewer(config) == Viewer("nobody", None)


async def test_a_group_of_the_users_file_counts(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "daemon")
    users = config.state_folder.parent / "users.yaml"
    users.write_text("users: {daemon: {groups: [security]}}\n")
    users.chmod(0o600)
    config.state_folder.mkdir()
    limited = allowing(config, auditors=["@security"])
    assert await viewer(limited) == Viewer("daemon", None)
    for owner in (config.state_folder, users):  # sudo makes root of them, and the file is the bastion's
        os.chown(owner, 65534, 65534)
    if (config.state_folder.parent.stat().st_mode & 0o001) != 0:
        assert await viewer(limited) == Viewer("daemon", None)
    os.chown(users, 0, 0)
    os.chown(config.state_folder, 0, 0)
    users.write_text("users: {daemon: {groups: [security], disabled: true}}\n")
    with pytest.raises(BastionError, match="no auditor"):
        await viewer(limited)


async def test_an_owner_sees_their_apps_where_that_is_allowed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    owned = {"daemon": frozenset({"web"})}

    async def owned_apps(_config: Config, user: str, _groups: frozenset[str]) -> frozenset[str]:
        return owned.get(user, frozenset())

    monkeypatch.setattr(viewer_module, "owned_apps", owned_apps)  # tests/control has the bastion that knows
    monkeypatch.setenv("SUDO_USER", "daemon")
    with pytest.raises(BastionError, match="no auditor"):
        await viewer(config)
    allowed = allowing(config, owners_may_read=True)
    assert await viewer(allowed) == Viewer("daemon", frozenset({"web"}))
    with pytest.raises(BastionError, match="daemon is no auditor"):
        await auditor(allowed)
    monkeypatch.setenv("SUDO_USER", "nobody")
    with pytest.raises(BastionError, match=r"nobody is no auditor .* and owns no app here"):
        await viewer(allowed)


async def test_a_look_is_in_the_log_and_a_refused_one_is_none(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    await upgrade(config.database)
    async with look(config, "sessions", Filters(user="alice"), like=None) as (_, seen):
        assert seen == Filters(user="alice", apps=None)
    assert config.audit.file is not None
    (event,) = others(map(json.loads, config.audit.file.read_text().splitlines()))
    assert (event["event"], event["user"], event["what"]) == ("audit.searched", "root", "sessions")
    assert event["filters"] == {"user": "alice"}
    monkeypatch.setenv("SUDO_USER", "daemon")
    with pytest.raises(BastionError):
        async with look(config, "sessions", Filters()):
            pass
    assert len(others(map(json.loads, config.audit.file.read_text().splitlines()))) == 1
