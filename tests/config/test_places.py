from pathlib import Path

import pytest

from bastion.config import load_config
from bastion.errors import ConfigError, Reason, Refusal

TEXT = """\
auth: {local: {}}
ssh:
  host_keys:
  - one
  - two
recording:
  folder: x
"""


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("ssh.host_keys[1]: two is gone: really", 5),
        ("ssh.max_sessions: of a section that is there", 2),
        ("recording.folder: full", 7),
        ("auth.local.file: in one line", 1),
        ("state_folder: of no section", 1),
        ("/etc/key: no option", None),
        ("Address already in use", None),
    ],
)
def test_what_is_wrong_when_it_is_used_has_its_line(tmp_path: Path, problem: str, line: int | None) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TEXT)
    config = load_config(file)
    with pytest.raises(ConfigError) as caught, config.naming_lines():
        raise ConfigError([problem])
    assert caught.value.problems == [problem if line is None else f"{file}:{line}: {problem}"]


def test_other_errors_pass(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TEXT)
    with pytest.raises(Refusal), load_config(tmp_path / "config.yaml").naming_lines():
        raise Refusal(Reason.ENGINE_ERROR, "ssh.host_keys: not one of these")
