"""Whoever fails to sign in again and again waits; others do not. Clients bind addresses of loopback of their own."""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

from tests.e2e.test_logins import password_command
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.postgres import postgres_server
from tests.servers.process import wait_until

PENALTIES = {"authfail": 2, "noauth": 0.5, "grace_exceeded": 4, "min": 4, "max": 6}


def come_from(bastion: Bastion, source: str, key: str | None = None) -> subprocess.CompletedProcess[bytes]:
    return bastion.ssh("alice+web.busy.1", "echo in", key=key, options=("-o", f"BindAddress={source}", "-v"))


def kept_out(bastion: Bastion, source: str) -> bool:
    return b"Not allowed at this time" in come_from(bastion, source, key="bob").stderr


def test_a_network_that_fails_waits_and_then_may_come_again(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url, ssh={"penalties": PENALTIES}) as bastion:
        for _ in range(2):
            assert b"Permission denied" in come_from(bastion, "127.0.0.2", key="bob").stderr
        event = bastion.wait_for_event("source.penalised", source_ip="127.0.0.2")
        assert (event["network"], event["offence"], event["seconds"] > 4) == ("127.0.0.2/32", "authfail", True)
        closed = bastion.events("connection.close", source_ip="127.0.0.2")
        assert [event["offence"] for event in closed] == ["authfail", "authfail"]

        opened = len(bastion.events("connection.open"))
        refused = come_from(bastion, "127.0.0.2")
        assert refused.returncode == 255
        assert b"Not allowed at this time" in refused.stderr
        assert len(bastion.events("connection.open")) == opened, "who is not even admitted does not fill the log"
        assert come_from(bastion, "127.0.0.3").stdout == b"in\n", "others are not held up"
        wait_until(lambda: come_from(bastion, "127.0.0.2").stdout == b"in\n", "the penalty is over", 30)


def test_who_only_connects_pays_little_until_it_is_a_flood(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url, ssh={"penalties": PENALTIES}) as bastion:

        def knock() -> bytes:
            with socket.create_connection(("127.0.0.1", bastion.port), 10, ("127.0.0.4", 0)) as connection:
                return connection.recv(100)

        for number in range(3):
            assert knock().startswith(b"SSH-2.0-"), number
        wait_until(lambda: knock() == b"Not allowed at this time\r\n", "a flood is kept out", 20)
        assert bastion.wait_for_event("source.penalised", source_ip="127.0.0.4")["offence"] == "noauth"


def test_what_one_bastion_saw_counts_for_all_that_share_a_database(
    bastion: Bastion, engine: Engine, tmp_path: Path
) -> None:
    with postgres_server() as postgres, contextlib.ExitStack() as both:
        url = postgres.url(postgres.create_database())

        def start(name: str) -> Bastion:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            for file in ("users.yaml", "alice_key", "bob_key"):
                shutil.copy(bastion.folder / file, folder / file)
            shutil.copytree(bastion.folder / "keys", folder / "keys", dirs_exist_ok=True)
            limits = {"penalties": {**PENALTIES, "max": 600, "min": 6, "authfail": 3}}
            changes = {"bastion_id": name, "database": {"url": url}, "ssh": limits}
            return both.enter_context(serving(folder, engine.url, **changes))

        one, other = start("one"), start("other")
        assert come_from(one, "127.0.0.6", key="bob").returncode == 255
        assert come_from(other, "127.0.0.6", key="bob").returncode == 255  # the second in all
        wait_until(lambda: kept_out(one, "127.0.0.6"), "the first knows of the second", 20)
        assert kept_out(other, "127.0.0.6")
        assert kept_out(start("third"), "127.0.0.6"), "and one that starts later"


def test_an_outage_costs_nobody_anything(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url, ssh={"penalties": PENALTIES}) as bastion:
        users = folder / "users.yaml"
        users.chmod(0o644)  # nobody signs in by a file that others can read
        for _ in range(4):
            assert come_from(bastion, "127.0.0.5").returncode == 255
        assert bastion.events("user.login_failed", source_ip="127.0.0.5", reason="auth_unavailable")
        users.chmod(0o600)
        assert come_from(bastion, "127.0.0.5").stdout == b"in\n"


def test_guessing_at_one_user_from_many_networks(folder: Path, engine: Engine) -> None:
    with serving(folder, engine.url) as bastion:
        assert come_from(bastion, "127.0.0.1").stdout == b"in\n"  # alice's network is known from here on

        def password(source: str, word: str) -> bytes:
            command = password_command(bastion, "alice+web.busy.1", "echo in")
            command[1:1] = ["-o", f"BindAddress={source}"]
            return bastion.with_password(word, command).stdout

        def throttled() -> bool:
            number = len(bastion.events("user.login_failed"))
            password(f"127.0.1.{number + 1}", "wrong")
            return bool(bastion.events("user.login_failed", reason="throttled"))

        wait_until(throttled, "the next guess would have to wait too long", 60)
        assert password("127.0.2.1", "correct horse") == b"", "from anywhere else the right one is not looked at either"
        assert password("127.0.0.1", "correct horse") == b"in\n", "where alice is known she does not notice"
