from pathlib import Path

from tests.cli.conftest import Run


def test_upgrade_makes_the_tables(bastion: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("auth: {local: {}}\n")
    for _ in range(2):
        done = bastion("db", "upgrade", "-c", config)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "bastion.db").stat().st_mode & 0o777 == 0o600


def test_upgrade_says_what_is_wrong(bastion: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("auth: {local: {}}\ndatabase: {url: postgresql+psycopg://u:s3cret@127.0.0.1:1/bastion}\n")
    done = bastion("db", "upgrade", "-c", config)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{config}:2: database.url: u at 127.0.0.1:1/bastion: ")
    assert "refused" in done.stderr
    assert "s3cret" not in done.stderr


def test_grants_quotes_the_role(bastion: Run) -> None:
    """What they allow and refuse is shown on a real PostgreSQL in tests/audit/test_database.py."""
    done = bastion("db", "grants", "--role", 'bas"tion; DROP')
    assert done.returncode == 0, done.stderr
    assert 'GRANT UPDATE (status, ended_at, updated_at) ON sessions TO "bas""tion; DROP";' in done.stdout
    assert "DELETE" not in done.stdout
    assert bastion("db", "grants").returncode == 2
