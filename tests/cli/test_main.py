import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

VERSION = importlib.metadata.version("bastion")


def test_the_version_is_printed(bastion: Run) -> None:
    for arguments in (["--version"], ["version"]):
        done = bastion(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"bastion {VERSION}\n", "")


def test_the_installed_command_is_the_same() -> None:
    command = shutil.which("bastion", path=str(Path(sys.executable).parent))
    assert command is not None
    assert subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout.endswith(
        f"{VERSION}\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["check-config"],
        ["version"],
        ["keys"],
        ["keys", "init"],
        ["users"],
        ["users", "add"],
        ["users", "passwd"],
        ["users", "list"],
        ["sessions"],
        ["sessions", "list"],
        ["play"],
        ["db"],
        ["db", "init"],
        ["db", "upgrade"],
        ["db", "grants"],
    ],
)
def test_help_is_there_for_each_command(bastion: Run, command: list[str]) -> None:
    done = bastion(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"bastion {' '.join(command)}".strip() in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_help_lists_every_command(bastion: Run) -> None:
    said = bastion("--help").stdout
    for command in ("serve", "check-config", "keys", "version", "users", "sessions", "play", "db"):
        assert f" {command} " in said


def test_what_goes_wrong_on_purpose_is_a_sentence_and_no_traceback(bastion: Run, tmp_path: Path) -> None:
    for command in (["serve"], ["check-config"], ["keys", "init"]):
        done = bastion(*command, "--config", tmp_path / "missing\x1b[31m\n.yaml")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"{tmp_path}/missing\\x1b[31m\\n.yaml: there is no such file; "
            "config.example.yaml shows what belongs in it\n"
        )


def test_nothing_that_a_terminal_obeys_gets_to_it(bastion: Run, tmp_path: Path) -> None:
    folder = tmp_path / "\x1b[31m\u202e"
    folder.mkdir()
    (folder / "config.yaml").write_text("auth: {local: {}}\n")
    done = bastion("check-config", "-c", folder / "config.yaml")
    assert done.returncode == 1
    assert f"{tmp_path}/\\x1b[31m\\u202e/keys/ssh_host_ed25519_key does not exist" in done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())
    done = bastion("keys", "init", "-c", folder / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_the_configuration_may_be_named_by_the_environment(bastion: Run, tmp_path: Path) -> None:
    done = bastion("check-config", env={"BASTION_CONFIG": str(tmp_path / "here.yaml")})
    assert done.stderr.startswith(f"{tmp_path}/here.yaml: there is no such file")


def test_what_the_terminal_can_not_show_is_escaped(bastion: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text('auth: {local: {}}\nssh: {listen: ["\\e]0;é\\a"]}\n')
    done = bastion("check-config", "-c", config, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 1
    assert "ssh.listen[0]: found '\\x1b]0;" in done.stderr
    assert "\x1b" not in done.stderr
