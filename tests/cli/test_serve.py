from pathlib import Path

from tests.cli.conftest import Run


def test_a_configuration_that_is_wrong_stops_the_start_with_all_that_is_wrong(bastion: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("auth: {}\nssh: {listen: x, max_sessions: 0}\n")
    done = bastion("serve", "-c", config)
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["auth", "ssh.listen", "ssh.max_sessions"]
    assert list(tmp_path.iterdir()) == [config]  # nothing was begun
