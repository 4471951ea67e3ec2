from pathlib import Path

import pytest

from bastion.containers.mounts import Mount, guarded

HERE, THERE = "unix:///run/engine.sock", "tcp://node7:2376"
FOLDERS = (Path("/data/state"), Path("/data/recordings"))


def bind(source: str, destination: str = "/x") -> Mount:
    return {"Type": "bind", "Source": source, "Destination": destination}


def volume(name: str, destination: str = "/x", source: str = "") -> Mount:
    return {"Type": "volume", "Name": name, "Source": source, "Destination": destination}


@pytest.mark.parametrize(
    ("mount", "here", "there"),
    [
        (bind("/data/recordings"), True, False),
        (bind("/data/recordings/2026/11"), True, False),  # inside
        (bind("/data"), True, False),  # holds both
        (bind("/data/recordings-of-others"), False, False),
        (bind("/data/other/../state/"), True, False),
        (bind("/srv"), False, False),
        (bind("/run/engine.sock"), True, False),
        (bind("/var/run/docker.sock"), True, True),
        (bind("/var/run"), True, True),
        (bind("/run/podman/podman.sock"), True, True),
        (bind("/"), True, True),
        (volume("logs"), False, False),
        (volume("logs", source="/data/state"), True, False),
        ({"Type": "tmpfs", "Source": "", "Destination": "/data/state"}, False, False),
    ],
)
def test_what_may_not_be_mounted(mount: Mount, here: bool, there: bool) -> None:
    assert guarded(HERE, FOLDERS, None).mounted([bind("/srv"), mount]) is here
    assert guarded("tcp://127.0.0.1:2375", FOLDERS, None).mounted([mount]) is (
        here and mount != bind("/run/engine.sock")
    )
    assert guarded(THERE, FOLDERS, None).mounted([mount]) is there


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for folder, source in (("link", "real/x"), ("real", "link")):
        assert guarded(HERE, [tmp_path / folder], None).mounted([bind(f"{tmp_path}/{source}")])


def test_in_a_container_the_folders_are_where_its_mounts_say() -> None:
    own = [bind("/srv/bastion", "/data"), bind("/etc/ssl", "/etc/ssl"), volume("keys", "/etc/bastion", "/v/keys")]
    found = guarded(THERE, FOLDERS, own)
    for mount in (bind("/srv/bastion/recordings/2026"), bind("/srv"), volume("keys"), bind("/srv/bastion/state")):
        assert found.mounted([mount]), mount
    for mount in (bind("/data/recordings"), bind("/etc/ssl"), volume("key"), bind("/srv/bastion/other")):
        assert not found.mounted([mount]), mount


def test_a_mount_below_a_folder_is_guarded_as_well() -> None:
    own = [bind("/big/old", "/data/recordings/2025"), volume("state", "/data/state", "/v/state/_data")]
    found = guarded(HERE, FOLDERS, own)
    assert found.mounted([bind("/big/old/01")])
    assert found.mounted([bind("/v/state/_data")])
    assert not found.mounted([bind("/big/new")])
