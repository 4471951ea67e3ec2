import stat
from pathlib import Path

import pytest

from bastion.audit import signing
from bastion.ssh import host_keys
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    return path


def test_missing_keys_are_made_beside_the_configuration_and_shown(bastion: Run, config: Path) -> None:
    done = bastion("keys", "init", "-c", config)
    assert done.returncode == 0, done.stderr
    paths = [config.parent / "keys/ssh_host_ed25519_key", config.parent / "keys/ssh_host_rsa_key"]
    *lines, last = done.stdout.splitlines()
    signing_key = config.parent / "keys/audit_key"
    assert last == f"audit log           {signing.load(signing_key).public.line}  {signing_key} (new)"
    assert stat.S_IMODE(signing_key.stat().st_mode) == 0o600
    for line, path, key in zip(lines, paths, host_keys.load(paths), strict=True):
        assert line.split() == [key.get_algorithm(), key.get_fingerprint(), str(path), "(new)"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_second_time_nothing_changes(bastion: Run, config: Path) -> None:
    first = bastion("keys", "init", "-c", config).stdout
    second = bastion("keys", "init", "-c", config).stdout
    assert second == first.replace(" (new)", "")


def test_a_key_that_others_can_read_is_an_error_that_says_chmod(bastion: Run, config: Path) -> None:
    bastion("keys", "init", "-c", config)
    key = config.parent / "keys/ssh_host_rsa_key"
    key.chmod(0o644)
    done = bastion("keys", "init", "-c", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"mend it with: chmod 600 {key}\n")
