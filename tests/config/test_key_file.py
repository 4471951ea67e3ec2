"""What holds for every private key that is a file; tests/ssh/test_host_keys.py has the words for host keys."""

import os
from pathlib import Path

import pytest

from bastion.config import key_file
from bastion.errors import ConfigError


def test_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "a_key"
    assert key_file.create(path, b"one")
    assert not key_file.create(path, b"two")
    assert key_file.read(path) == b"one"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path], "nothing unfinished is left"


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a_key"
    path.symlink_to(tmp_path / "elsewhere")
    assert not key_file.create(path, b"one")
    assert not (tmp_path / "elsewhere").exists()


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no folder")
    with pytest.raises(ConfigError, match="can not be made"):
        key_file.create(tmp_path / "keys" / "a_key", b"one")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o601])
def test_what_others_can_read_is_none(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a_key"
    key_file.create(path, b"one")
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"has mode {mode:04o}: others can read it; mend it with: chmod 600"):
        key_file.read(path)


def test_what_is_no_file_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, said in ((tmp_path / "none", "does not exist"), (tmp_path / "pipe", "is not a file")):
        with pytest.raises(ValueError, match=said):
            key_file.read(path)
