"""systemd/: what systemd's own tools say of the unit, the user and the folders."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bastion.config import load_config

SYSTEMD = Path(__file__).parents[1] / "systemd"
UNIT = SYSTEMD / "bastion.service"


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a machine that has no user of the bastion's yet."""
    for name, content in {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\n"}.items():
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text(content)
    for name in ("sysusers", "tmpfiles"):
        target = tmp_path / f"usr/lib/{name}.d/bastion.conf"
        target.parent.mkdir(parents=True)
        shutil.copy(SYSTEMD / f"bastion.{name}.conf", target)
    return tmp_path


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    installed = tmp_path / "bastion.service"
    command = str(Path(sys.executable).parent / "bastion")
    text = UNIT.read_text()
    assert "ExecStart=/opt/bastion/bin/bastion serve" in text
    installed.write_text(text.replace("/opt/bastion/bin/bastion", command))
    assert run("systemd-analyze", "verify", "--man=no", installed) == ""


def test_the_examples_in_the_unit_and_its_readme_are_right_as_well(tmp_path: Path) -> None:
    command = str(Path(sys.executable).parent / "bastion")
    text = UNIT.read_text().replace("/opt/bastion/bin/bastion", command)
    text, switched_on = re.subn(r"^#(LoadCredential)", r"\1", text, flags=re.MULTILINE)
    assert switched_on == 1
    for setting in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert f"{setting}=CAP_NET_BIND_SERVICE" in (SYSTEMD / "README.md").read_text()
        text = text.replace(f"{setting}=\n", f"{setting}=CAP_NET_BIND_SERVICE\n")
    (tmp_path / "bastion.service").write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", tmp_path / "bastion.service") == ""


def test_the_unit_is_sandboxed() -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for bastion\.service: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 2.0


def test_the_user_is_made_and_may_use_the_engines_socket(root: Path) -> None:
    run("systemd-sysusers", f"--root={root}", "bastion.conf")
    users = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":") for line in (root / "etc/group").read_text().splitlines()}
    assert 0 < int(users["bastion"][2]) < 1000
    assert users["bastion"][5:] == ["/var/lib/bastion", "/usr/sbin/nologin"]
    assert users["bastion"][3] == groups["bastion"][2]
    assert groups["docker"][3] == "bastion"


def test_the_folders_are_made_for_the_bastion_alone(root: Path) -> None:
    run("systemd-sysusers", f"--root={root}", "bastion.conf")
    run("systemd-tmpfiles", f"--root={root}", "--create", "bastion.conf")
    uid = int(next(line for line in (root / "etc/passwd").read_text().splitlines() if "bastion" in line).split(":")[2])
    for folder, mode, owner in [
        ("etc/bastion", 0o750, 0),
        ("etc/bastion/keys", 0o700, uid),
        ("var/lib/bastion", 0o700, uid),
        ("var/log/bastion", 0o700, uid),
    ]:
        status = (root / folder).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, owner), folder


def test_the_unit_and_the_configuration_name_the_same_folders(tmp_path: Path) -> None:
    config = load_config(SYSTEMD / "config.yaml")
    unit = UNIT.read_text()
    state, logs = (f"/var/{kind}/{re.search(rf'^{name}Directory=(.*)$', unit, re.MULTILINE)[1]}"  # type: ignore[index] # else it fails
                   for kind, name in (("lib", "State"), ("log", "Logs")))  # fmt: skip
    assert config.auth.local is not None
    for path in (config.auth.local.file, config.recording.folder):
        assert str(path.parent) == state
    assert config.database.url.get_secret_value() == f"sqlite+aiosqlite:///{state}/bastion.db"
    assert config.audit.file is not None
    assert str(config.audit.file.parent) == logs
    # and the keys are beside the configuration, where tmpfiles makes their folder
    assert "d /etc/bastion/keys " in (SYSTEMD / "bastion.tmpfiles.conf").read_text()
    assert {key.parent for key in config.ssh.host_keys} == {SYSTEMD / "keys"}


def test_every_file_that_the_readme_installs_is_there() -> None:
    text = (SYSTEMD / "README.md").read_text()
    named = set(re.findall(r" systemd/([\w.]+)", text))
    assert named == {path.name for path in SYSTEMD.iterdir()} - {"README.md"}
