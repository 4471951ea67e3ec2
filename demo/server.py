"""The demo's bastion: keys, configuration, two users, and `bastion serve`."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from bastion.config import Engine
from demo import processes
from demo.terminal import Problem, step

HOST = "127.0.0.1"
USERS = ("alice", "bob")
BASTION = Path(sys.executable).with_name("bastion")


def port_of(environ: Mapping[str, str]) -> int:
    """BASTION_PORT, or 2222. Raises `Problem` if it is no port, or somebody else's."""
    text = environ.get("BASTION_PORT") or "2222"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Problem(f"BASTION_PORT={text!r} is no port: a number from 1 to 65535 is.")
    port = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Problem(
                f"Port {port} on {HOST} can not be had ({error.strerror}). "
                f"Choose another: BASTION_PORT={port + 1} make demo"
            ) from error
    return port


def passwords(file: Path) -> dict[str, str]:
    """The users' passwords: made once, and kept with the keys, so that the next demo has the same."""
    file.touch(mode=0o600)
    if not file.read_text():
        file.write_text(yaml.safe_dump({user: secrets.token_urlsafe(9) for user in USERS}))
    kept = yaml.safe_load(file.read_text())
    return {user: str(kept[user]) for user in USERS}


def configure(run: Path, keys: Path, port: int, engine: Engine) -> Path:
    """Write the configuration; returns its file."""
    file = run / "config.yaml"
    section = engine.model_dump(mode="json", include={"name", "url", "tls"}, exclude_none=True)
    file.write_text(
        yaml.safe_dump(
            {
                "ssh": {
                    "listen": [f"{HOST}:{port}"],
                    "host_keys": [os.path.relpath(keys / f"ssh_host_{kind}_key", run) for kind in ("ed25519", "rsa")],
                },
                "auth": {"local": {"file": "users.yaml"}},
                "engines": [section],
                "recording": {"folder": "recordings"},
                "database": {"url": "sqlite+aiosqlite:///bastion.db"},
                "audit": {"file": "audit.jsonl"},
            },
            sort_keys=False,
        )
    )
    return file


def prepare(config: Path, known: Mapping[str, str]) -> list[subprocess.Popen[str]]:
    """Begin to make the keys that are missing, and the users; `prepared` waits for it."""
    commands = [_bastion(config, "", "keys", "init")]
    return commands + [_bastion(config, known[user], "users", "add", user, "--password-stdin") for user in known]


def prepared(commands: list[subprocess.Popen[str]]) -> str:
    """Wait for what `prepare` began; returns the keys' fingerprints. Raises `Problem`."""
    with step("Keys and users"):
        said = []
        for command in commands:
            assert command.stdout
            said.append(command.stdout.read())
            if status := command.wait():
                raise Problem(f"A bastion command failed, with status {status}:\n{said[-1]}")
        return said[0]


def serve(config: Path, port: int) -> subprocess.Popen[bytes]:
    """Start `bastion serve`; returns when it serves. Raises `Problem` with its last words, if it does not."""
    log = config.with_name("bastion.log")
    with step("Starting the bastion"), log.open("wb") as output:
        process = subprocess.Popen(
            [BASTION, "serve", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=processes.environment(_mark(config.parent)),
            start_new_session=True,  # ctrl-C is for the demo, which then ends the bastion
        )
        deadline = time.monotonic() + 30
        # Its own word: a probe of the port would be the first entry in the audit log.
        while f"serving on {HOST}:{port}" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Problem(f"The bastion did not start. Its last words:\n{last_words(log)}")
            time.sleep(0.05)
    return process


def stop(run: Path) -> None:
    """End the bastion of `run`, by SIGTERM, and by SIGKILL if that is not enough."""
    if not processes.end(_mark(run), signal.SIGTERM, 15):
        processes.end(_mark(run), signal.SIGKILL, 15)


def last_words(log: Path) -> str:
    return "".join(f"  {line}\n" for line in log.read_text(errors="replace").splitlines()[-12:])


def _mark(run: Path) -> str:
    return f"{processes.mark_of(run)}-server"


def _bastion(config: Path, stdin: str, *arguments: str) -> subprocess.Popen[str]:
    command = subprocess.Popen(
        [BASTION, *arguments, "-c", config],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=processes.environment(_mark(config.parent)),
    )
    assert command.stdin
    with contextlib.suppress(BrokenPipeError), command.stdin:  # what is wrong is in its output
        command.stdin.write(stdin + "\n")
    return command
