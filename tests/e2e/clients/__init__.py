"""The clients that must work, each as a command: signs in with the password or alice's key, with a terminal or without.

`words` is the command to run, None for a shell.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.servers.bastion import PASSWORD, Bastion

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Call:
    """A client's command line and what it needs in its environment."""

    command: list[str]
    env: dict[str, str]

    def run(self, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            self.command, input=stdin, capture_output=True, timeout=60, check=False, env={**os.environ, **self.env}
        )


def openssh(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    command = bastion.ssh_command(login, *([words] if words else []), options=("-tt",) if terminal else ())
    if not password:
        return Call(command, {})
    command[1:1] = ["-o", "BatchMode=no", "-o", "PreferredAuthentications=password"]
    return Call(["sshpass", "-e", *command], {"SSHPASS": PASSWORD})


def plink(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    key = bastion.folder / "alice_key.ppk"
    if not key.exists():
        subprocess.run(["puttygen", str(bastion.folder / "alice_key"), "-o", str(key)], check=True)
    scan = ["ssh-keygen", "-lf", str(bastion.folder / "keys/ssh_host_ed25519_key.pub")]
    fingerprint = subprocess.run(scan, capture_output=True, check=True, text=True).stdout.split()[1]
    command = ["plink", "-ssh", "-batch", "-P", str(bastion.port), "-hostkey", fingerprint, "-noagent"]
    command += ["-t" if terminal else "-T", *(["-pw", PASSWORD] if password else ["-i", str(key)])]
    return Call([*command, "-l", login, "127.0.0.1", *([words] if words else [])], {})


def dbclient(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    key = bastion.folder / "alice_key.dropbear"
    if not key.exists():
        convert = ["dropbearconvert", "openssh", "dropbear", str(bastion.folder / "alice_key"), str(key)]
        subprocess.run(convert, check=True, capture_output=True)
    command = ["dbclient", "-y", "-y", "-p", str(bastion.port), *(["-t"] if terminal else ["-T"])]
    command += [] if password else ["-i", str(key)]
    return Call(
        [*command, "-l", login, "127.0.0.1", *([words] if words else [])],
        {"DROPBEAR_PASSWORD": PASSWORD} if password else {},
    )


def _script(
    program: list[str], bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool
) -> Call:
    env = {"CLIENT_TERMINAL": "1" if terminal else ""}
    env |= {"CLIENT_PASSWORD": PASSWORD} if password else {"CLIENT_KEY": str(bastion.folder / "alice_key")}
    return Call([*program, str(bastion.port), login, *([words] if words else [])], env)


def paramiko(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    program = [sys.executable, str(HERE / "paramiko_client.py")]
    return _script(program, bastion, login, words, password=password, terminal=terminal)


def asyncssh(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    program = [sys.executable, str(HERE / "asyncssh_client.py")]
    return _script(program, bastion, login, words, password=password, terminal=terminal)


def ssh2(bastion: Bastion, login: str, words: str | None, *, password: bool, terminal: bool) -> Call:
    program = [str(BIN / "node"), str(HERE / "ssh2_client.js")]
    return _script(program, bastion, login, words, password=password, terminal=terminal)


CLIENTS = {client.__name__: client for client in (openssh, plink, dbclient, paramiko, asyncssh, ssh2)}
