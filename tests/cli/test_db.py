from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import Run
from tests.servers.postgres import postgres_server


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


def test_init_sets_both_roles_up_and_may_be_repeated(bastion: Run) -> None:
    """What the role is refused is shown in tests/audit/test_roles.py."""
    with postgres_server() as server:
        name = server.create_database()
        with server.connect() as superuser:
            superuser.execute("CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'of-owner'")
            superuser.execute(f"ALTER DATABASE {name} OWNER TO owner")
        init = ["db", "init", "--owner-url", server.tcp_url(name, "owner", "of-owner"), "--role", "the bastion"]
        done = bastion(*init, "--password-stdin", input="correct horse\n")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "The tables are those of this version.\n"
            "The role the bastion is new, and can log in with the password.\n"
            "It may read, insert, and update only the status of a session and when it changed.\n"
        )
        at = f"host=127.0.0.1 port={server.port} dbname={name} user='the bastion' password='correct horse'"
        with psycopg.connect(at) as role, pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.execute("DELETE FROM events")
        with server.connect(name) as superuser:
            superuser.execute('GRANT DELETE ON events TO "the bastion"; GRANT UPDATE ON sessions TO PUBLIC')
        again = bastion(*init, input="")  # nothing is asked
        assert again.returncode == 0, again.stderr
        assert "The role the bastion was there, and keeps its password.\n" in again.stdout
        assert again.stderr.startswith("warning: the role may do more than serving needs")
        assert "DELETE on events" not in again.stderr
        assert "UPDATE (user)" in again.stderr
        psycopg.connect(at).close()
        itself = bastion(*init[:-1], "owner")
        assert (itself.returncode, "owner owns the tables" in itself.stderr) == (1, True)


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///bastion.db", "hunter2", "postgresql://owner:hunter2@db/bastion"])
def test_init_is_for_postgresql(bastion: Run, url: str) -> None:
    done = bastion("db", "init", "--owner-url", url, "--role", "bastion")
    assert done.returncode == 1
    assert "--owner-url: postgresql+psycopg://owner@host/database is right" in done.stderr
    assert "hunter2" not in done.stderr


def test_init_says_what_is_wrong(bastion: Run) -> None:
    url = "postgresql+psycopg://owner:hunter2@127.0.0.1:1/bastion"
    done = bastion("db", "init", "--owner-url", url, "--role", "bastion")
    assert done.returncode == 1
    assert "--owner-url: owner at 127.0.0.1:1/bastion: " in done.stderr
    assert "hunter2" not in done.stderr
