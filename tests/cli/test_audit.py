"""A log that was touched: it is found, nothing goes on over it, and an operator who knows why says so."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path, bastion: Run) -> Path:
    """With a log that has some entries: looks at an empty list."""
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    assert bastion("db", "upgrade", "-c", path).returncode == 0
    for _ in range(2):
        assert bastion("sessions", "list", "-c", path).returncode == 0
    return path


def test_a_touched_log_is_found_refused_acknowledged_and_goes_on(bastion: Run, config: Path) -> None:
    log = config.parent / "audit.jsonl"
    good = bastion("audit", "verify", "-c", config)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "nothing was changed, removed, added or re-ordered")
    nothing = bastion("audit", "acknowledge", "--why", "a drill", "-c", config)
    assert (nothing.returncode, nothing.stderr) == (1, "nothing is found that was not acknowledged already\n")

    log.write_text(log.read_text().replace('"what": "sessions"', '"what": "Sessions"', 1))
    found = bastion("audit", "verify", "-c", config)
    assert found.returncode == 1
    assert ": changed: " in found.stdout
    refused = bastion("sessions", "list", "-c", config)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert ": changed: " in refused.stderr, "nothing is shown, since the look can not be logged"

    done = bastion("audit", "acknowledge", "--why", "a drill", "-c", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("acknowledged: ")
    after = bastion("audit", "verify", "-c", config)
    assert after.returncode == 0, after.stdout
    assert "acknowledged (a drill): " in after.stdout, "what is wrong stays found"
    assert bastion("sessions", "list", "-c", config).returncode == 0
    assert '"event": "audit.acknowledged"' in log.read_text()
