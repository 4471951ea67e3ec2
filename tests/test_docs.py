"""The README and docs/: every command is run, and prints what the page says; recordings and log lines are real."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bastion.recording.asciicast import decode_event, decode_header
from tests.e2e.terminal import on_terminal
from tests.pages import README, RECORDING, ROOT, Block, blocks
from tests.recordings import content
from tests.servers.bastion import BASTION, Bastion, serving
from tests.servers.engine import DEBIAN, docker_engine
from tests.servers.postgres import Postgres, postgres_server
from tests.servers.process import wait_until

SHELL_SESSION, COMMAND_SESSION = "8a31b805588d7f1b", "a4f3089a4846085e"  # those that the pages show

# Commands that change the machine they are run on: where they are copied from, and what tests them.
ELSEWHERE = {
    "python3 -m venv /opt/bastion": (
        "systemd/README.md",
        "tests/e2e/test_systemd.py",
    ),  # root, and systemd as process 1
    "docker build -t bastion .": ("Dockerfile", "tests/test_dockerfile.py"),  # ports and volumes of the machine's own
}


# ---- the commands ----


@dataclass
class Place:
    """Where the commands of a section are run; `words` are replaced in them, and back in what they print."""

    folder: Path
    env: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block) -> list[tuple[int, str]]:
        """Exit status and output of each command, all in one shell."""
        script = "".join(f"{self.there(command)}\n_was=$?; printf '\\036%d\\036' $_was; (exit $_was)\n"
                         for command, _ in block.commands)  # fmt: skip
        env = {
            **os.environ,
            **self.env,
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with (self.folder / "printed").open("w+b") as printed:  # no pipe: ssh's ControlPersist would hold it open
            command = ["bash", "-c", script]
            done = subprocess.Popen(
                command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed
            )
            done.wait(100)
            printed.seek(0)
            parts = printed.read().decode().split("\x1e")
        return [(int(status), self.back(text)) for text, status in zip(parts[::2], parts[1::2], strict=False)]

    def there(self, command: str) -> str:
        for shown, real in self.words.items():
            command = command.replace(shown, real)
        return command

    def back(self, text: str) -> str:
        for shown, real in self.words.items():
            text = text.replace(real, shown)
        return text


def plain(text: str) -> str:
    """Without a terminal's sequences, and with what is different each time made the same."""
    text = re.sub(r"\x1b(?:\[[0-9;?]*[@-~]|[()].|[78])|[\r\x0f]", "", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)
    text = re.sub(r"SHA256:[A-Za-z0-9+/]{43}", "<fingerprint>", text)
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b", "<hex>", text)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def is_as_shown(shown: list[str], printed: str) -> bool:
    """`…` in what is shown stands for anything within a line."""
    pattern = ".*".join(re.escape(part) for part in plain("\n".join(shown)).split("…"))
    return re.fullmatch(pattern, plain(printed)) is not None


@pytest.fixture(scope="module")
def bastion() -> Iterator[Bastion]:
    """With the containers that the README speaks of, and no others: in an engine of its own."""
    with tempfile.TemporaryDirectory(prefix="bt-") as name:
        folder = Path(name)
        (folder / "engine").mkdir()
        with docker_engine(folder / "engine") as engine:
            engine.app("web", "worker", 1, image=DEBIAN)
            engine.app("web", "worker", 2)
            engine.app("vault", "db", 1, owners="bob")
            compose = {"project": "shop", "service": "front", "container-number": "1"}
            labels = {f"com.docker.compose.{part}": value for part, value in compose.items()}
            engine.run(labels=labels | {"bastion.owners": "alice"})
            with serving(folder, engine.url) as started:
                yield started


@pytest.fixture
def users(bastion: Bastion) -> Iterator[Place]:
    """A developer's machine: the README's own ~/.ssh/config, and alice's key."""
    folder = bastion.folder / "home"
    folder.mkdir()
    (config,) = blocks(README, "ssh-config")
    real = {"bastion.example.org": "127.0.0.1", "Port 2222": f"Port {bastion.port}", "~/.ssh": str(folder)}
    text = Place(folder, {}, real).there(config.text)
    text += f"\nHost *\n    IdentityFile {bastion.folder}/alice_key\n    IdentitiesOnly yes\n    BatchMode yes\n"
    text += f"    UserKnownHostsFile {bastion.folder}/known_hosts\n"
    (folder / "ssh_config").write_text(text)
    assert bastion.ssh("alice+web.worker.1", "true").returncode == 0  # its host key is known then
    (folder / "bin").mkdir()
    for program in ("ssh", "scp"):  # they do not look for their configuration in $HOME
        script = f'#!/bin/bash\nexec -a {program} {shutil.which(program)} -F {folder}/ssh_config "$@"\n'
        (folder / "bin" / program).write_text(script)
        (folder / "bin" / program).chmod(0o755)
    (folder / "notes").mkdir()
    (folder / "notes/today").write_text("nothing much\n")
    yield Place(folder, {})
    for socket in folder.glob("bastion-*"):
        subprocess.run(["ssh", "-F", "none", "-S", str(socket), "-O", "exit", "x"], capture_output=True, check=False)


@pytest.fixture
def install(tmp_path: Path) -> Place:
    """The folders that systemd/ makes, and its configuration, below a temporary one."""
    for folder in ("etc/bastion/keys", "var/lib/bastion", "var/log/bastion"):
        (tmp_path / folder).mkdir(parents=True, mode=0o700)
    words = {path: f"{tmp_path}{path}" for path in ("/etc/bastion/", "/var/lib/", "/var/log/")}
    place = Place(tmp_path, {"BASTION_CONFIG": f"{tmp_path}/etc/bastion/config.yaml"}, words)
    config = (ROOT / "systemd/config.yaml").read_text()
    (tmp_path / "etc/bastion/config.yaml").write_text(place.there(config))
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(tmp_path / "alice")], check=True)
    (tmp_path / "password").write_text("correct horse\n")
    return place


@pytest.fixture
def signing_in(tmp_path: Path) -> Place:
    """The README's own fragments, and alice's key."""
    headings = ("Certificates", "A second factor")
    certificates, codes, _ = (block.text for block in blocks(README, "yaml") if block.heading in headings)
    (tmp_path / "config.yaml").write_text(certificates + codes.partition("local: {}\n")[2])
    (tmp_path / "revoked_keys").touch()
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(tmp_path / "alice")], check=True)
    place = Place(tmp_path, {"BASTION_CONFIG": "config.yaml"})
    subprocess.run([*BASTION, "keys", "init", "-c", str(tmp_path / "config.yaml")], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(tmp_path: Path, postgres: Postgres) -> Place:
    """The README's own fragment, and a role that may make databases and roles."""
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE owner LOGIN CREATEDB CREATEROLE PASSWORD 'of-owner'")
    (fragment,) = (block.text for block in blocks(README, "yaml") if block.heading == "PostgreSQL")
    text = fragment.replace("db.example.org", f"127.0.0.1:{postgres.port}") + "auth: {local: {}}\n"
    (tmp_path / "config.yaml").write_text(text)
    env = {"PGHOST": str(postgres.folder), "PGPORT": str(postgres.port), "PGUSER": "owner"}
    env |= {"BASTION_CONFIG": "config.yaml", "DB_PASSWORD": "of-bastion", "OWNER_PASSWORD": "of-owner"}
    return Place(tmp_path, env, {"db.example.org": f"127.0.0.1:{postgres.port}"})


@pytest.fixture
def security(bastion: Bastion) -> Place:
    """After the two sessions that the pages show."""
    script = 'read x; echo "got $x"; echo oops >&2; exit 7'
    assert bastion.ssh("alice+shop.front.1", script, stdin=b"key\n").returncode == 7
    with on_terminal(bastion.ssh_command("alice+web.worker.1")) as terminal:
        for keys, seen in [
            (b"", rb"# "),
            (b"echo hello\r", rb"hello\r\n.*hello\r\n.*# "),
            (b"read -sp 'Password: ' P; echo\r", rb"echo\r\n.*Password: "),
            (b"hunter2\r", rb"# "),
        ]:
            terminal.type(keys)
            terminal.expect(seen)
        terminal.type(b"exit 4\r")
        assert terminal.wait() == 4
    assert bastion.ssh("alice+vault.db.1", "id").returncode == 1
    denied = bastion.wait_for_event("access.denied", address="vault.db.1")
    shell = bastion.wait_for_event("session.end", address="web.worker.1", exit_status=4)
    command = bastion.wait_for_event("session.end", address="shop.front.1", exit_status=7)
    with sqlite3.connect(bastion.folder / "bastion.db") as rows:
        active = "SELECT count(*) FROM sessions WHERE status = 'active'"
        wait_until(lambda: rows.execute(active).fetchone() == (0,), "the rows have ended")
        refused = "SELECT count(*) FROM events WHERE session_id = ?"
        wait_until(lambda: rows.execute(refused, [denied["session_id"]]).fetchone() == (1,), "the refusal is there")
    rows.close()
    (bastion.folder / "bin").mkdir(exist_ok=True)
    words = {SHELL_SESSION: shell["session_id"], COMMAND_SESSION: command["session_id"]}
    return Place(bastion.folder, {"BASTION_CONFIG": "config.yaml"}, {**words, " 8a31 ": f" {shell['session_id']} "})


PLACES = {
    "For users": "users",
    "Install": "install",
    "Certificates": "signing_in",
    "A second factor": "signing_in",
    "PostgreSQL": "database",
    "For the security team": "security",
    "Replay": "security",
    "The recording": "security",
    "The audit log": "security",
    "Proof": "security",
}


@pytest.mark.parametrize("heading", PLACES)
def test_commands_print_what_the_readme_says(heading: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(PLACES[heading])
    here = [block for block in blocks(README, "console") if block.heading == heading]
    assert here
    for block in here:
        done = place.run(block)
        assert len(done) == len(block.commands), done
        following = [command for command, _ in block.commands[1:]] + [""]
        for (command, shown), (status, printed), after in zip(block.commands, done, following, strict=True):
            assert is_as_shown(shown, printed), f"$ {command}\n{printed}"
            assert status == 0 or after == "echo $?", f"$ {command}\n{printed}exit status {status}"


def test_every_console_is_run_somewhere() -> None:
    assert {block.heading for block in blocks(README, "console")} == set(PLACES)
    assert not blocks(RECORDING, "console", "sh")


def test_commands_that_are_not_run_here_are_run_elsewhere() -> None:
    def words(text: str) -> str:
        return " ".join(text.replace("\\\n", " ").replace("#", " ").split())

    found = blocks(README, "sh")
    assert {block.text.splitlines()[0].partition(" && ")[0] for block in found} == set(ELSEWHERE)
    for block in found:
        page, test = next(value for start, value in ELSEWHERE.items() if block.text.startswith(start))
        original = words((ROOT / page).read_text())
        for command in block.text.replace("\\\n", " ").splitlines():
            assert words(command) in original, command
        assert Path(page).name.partition(".")[0] in (ROOT / test).read_text()


# ---- the recording and the log as they are shown ----


def folded(cast: str) -> tuple[object, list[tuple[str, bytes]], bytes]:
    """A recording without its times: the header, the events but for output, and the output in one piece."""
    lines = plain_numbers(cast).encode().splitlines()
    header = decode_header(lines[0])
    events = [decode_event(line) for line in lines[1:]]
    output = b"".join(event.data for event in events if event.code == "o")
    return header, [(event.code, event.data) for event in events if event.code != "o"], output


def plain_numbers(text: str) -> str:
    text = re.sub(r'"timestamp": \d+', '"timestamp": 0', text)
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b", "hex", text)


def test_the_recordings_that_are_shown_are_real(bastion: Bastion, security: Place) -> None:
    shown = blocks(RECORDING, "cast")
    for block, session in zip(shown, (SHELL_SESSION, COMMAND_SESSION), strict=True):
        (path,) = [path for path in bastion.recordings() if path.stem == security.words[session]]
        assert folded(content(path).decode()) == folded(block.text)


def test_the_bytes_of_a_stream_come_back(bastion: Bastion, tmp_path: Path) -> None:
    script = tmp_path / "stream.py"
    (block,) = blocks(RECORDING, "python")
    script.write_text(block.text)
    sent = bastion.ssh("alice+web.worker.1", "echo text; head -c 3000 /dev/urandom; printf '\\377 latin\\n'; exit 9")
    end = bastion.wait_for_event("session.end", exit_status=9)
    (path,) = [path for path in bastion.recordings() if path.stem == end["session_id"]]
    (tmp_path / "lines").write_bytes(content(path))
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "lines"), "o"], capture_output=True, check=True)
    assert done.stdout == sent.stdout
    assert hashlib.sha256(done.stdout).hexdigest() == end["streams"]["o"]["sha256"]


def test_the_lines_of_the_audit_log_that_are_shown_are_real(bastion: Bastion, security: Place) -> None:
    assert bastion.ssh("alice+vault.db.1", "id").returncode == 1
    (block,) = blocks(README, "json")
    for shown in map(json.loads, block.text.splitlines()):
        same = {key: shown[key] for key in ("user", "address", "exit_status", "reason") if key in shown}
        assert list(bastion.wait_for_event(shown["event"], **same)) == list(shown)
