"""The clients that must work, and what careful ones look for in a server."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.e2e.clients import BIN, CLIENTS
from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.servers.bastion import BASTION, PASSWORD, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import accepts, free_port, running, wait_until

WEB = "alice+web.worker.1"
BUSY = "alice+web.busy.1"
CHACHA20 = "chacha20-poly1305@openssh.com"
KEX = ("curve25519-sha256", "curve25519-sha256@libssh.org")
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CTR = ("aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256")


@pytest.mark.parametrize("password", [False, True], ids=["key", "password"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_command(bastion: Bastion, client: str, *, password: bool) -> None:
    data = bytes(range(256)) * 1000 + b"\r\n\0"
    before = len(bastion.events("user.login"))
    call = CLIENTS[client](bastion, BUSY, "cat; echo error >&2; exit 5", password=password, terminal=False)
    done = call.run(data)
    assert done.stdout == data
    assert done.stderr.endswith(b"error\n")
    assert done.returncode == 5
    (login,) = bastion.events("user.login")[before:]
    assert login["method"] == ("local-password" if password else "local-publickey")


@pytest.mark.parametrize("password", [False, True], ids=["key", "password"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_terminal(bastion: Bastion, client: str, *, password: bool) -> None:
    call = CLIENTS[client](bastion, WEB, None, password=password, terminal=True)
    with on_terminal(call.command, 131, 47, "screen-256color", call.env) as terminal:
        terminal.expect(rb"[#$] ")
        terminal.type(b"echo $(stty size) $TERM.\r")
        # plink has its own idea of what it is, whatever it runs on
        terminal.expect(rb"47 131 xterm\.\r" if client == "plink" else rb"47 131 screen-256color\.\r")
        terminal.resize(100, 30)
        terminal.type(b'until [ "$(stty size)" = "30 100" ]; do sleep 0.05; done; echo "res"ized\r')
        terminal.expect(b"resized\r")
        terminal.type(b"exit 7\r")
        assert terminal.wait() == 7


@pytest.fixture(scope="module")
def sshd(bastion: Bastion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """OpenSSH's own server with the bastion's host keys and alice's key; its port."""
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    keys = [part for kind in ("ed25519", "rsa") for part in ("-h", f"{bastion.folder}/keys/ssh_host_{kind}_key")]
    options = (f"ListenAddress=127.0.0.1:{port}", f"AuthorizedKeysFile={bastion.folder}/alice_key.pub")
    options += ("StrictModes=no", "PidFile=none", "PermitRootLogin=yes", "UsePAM=no")
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *keys, *(w for o in options for w in ("-o", o))]
    with running(command, folder / "log"):
        wait_until(lambda: accepts(port), "sshd listens")
        yield port


# What ssh says of any server and what says which algorithms were chosen, in other words for other ones.
_SAME = re.compile(r"\d+(\.\d+)?|SHA256:\S+|'[^']*'|<[^>]*>|\S+@\S+|(?<=algorithm: )\S+|(?<=software version )\S+")
_ODD = re.compile(
    r"error|fail|unexpected|fallback|unable|warning|bad|invalid|denied|disconnect|mismatch|weak|unrec|unknown", re.I
)


def talkative(command: list[str], level: str) -> list[str]:
    return [f"LogLevel={level}" if word == "LogLevel=ERROR" else word for word in command]


def verbose(command: list[str]) -> list[str]:
    done = subprocess.run(
        talkative(command, "DEBUG1"),
        capture_output=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert (done.stdout, done.returncode) == (b"hello\n", 3), done.stderr
    return done.stderr.decode().splitlines()


def test_ssh_v_says_nothing_odd(bastion: Bastion, sshd: int) -> None:
    """Beyond what it says of OpenSSH's own server."""
    words = "echo hello; exit 3"
    assert bastion.ssh(BUSY, "true").returncode == 0  # the host key is known from here on
    ours = verbose(bastion.ssh_command(BUSY, words))
    known = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    command = bastion.ssh_command("root", words, options=known, key="alice")
    command[command.index("-p") + 1] = str(sshd)
    theirs = {_SAME.sub("", line) for line in verbose(command)}
    odd = [line for line in ours if _ODD.search(line) and _SAME.sub("", line) not in theirs]
    assert odd == []


def test_ssh_audit_finds_nothing_to_fail(bastion: Bastion) -> None:
    command = [str(BIN / "ssh-audit"), "-j", "--skip-rate-test", f"127.0.0.1:{bastion.port}"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    found: dict[str, set[str]] = {"fail": set(), "warn": set()}
    for kind in ("kex", "key", "enc", "mac"):
        assert report[kind]
        for entry in report[kind]:
            for level, names in found.items():
                if entry.get("notes", {}).get(level):
                    names.add(entry["algorithm"])
    # what is left to warn of: no quantum computer is held off, for clients that can't; dropbear's only MAC of SHA-2
    assert found == {"fail": set(), "warn": {*KEX, "hmac-sha2-256"}}
    assert report["cves"] == []


@pytest.mark.parametrize("name", [*(f"KexAlgorithms={name}" for name in KEX), *(f"Ciphers={name}" for name in GCM)])
def test_each_algorithm_that_openssh_is_offered(bastion: Bastion, name: str) -> None:
    data = os.urandom(100_000)
    done = bastion.ssh(BUSY, "cat", options=("-o", name), stdin=data)
    assert (done.stdout, done.returncode) == (data, 0), done.stderr


@pytest.mark.parametrize("name", ["ssh-ed25519", "rsa-sha2-256"])
def test_each_host_key(bastion: Bastion, name: str) -> None:
    command = bastion.ssh_command(BUSY, "echo in", options=("-o", f"HostKeyAlgorithms={name}"))
    command[1:1] = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]  # the first counts
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == (b"in\n", 0), done.stderr


@pytest.mark.parametrize(
    ("kex", "cipher", "mac"),
    [
        ("mlkem768x25519-sha256", GCM[0], MACS[0]),  # Debian 12's ssh does not know it
        *((KEX[0], cipher, MACS[0]) for cipher in (*GCM, *CTR)),
        *((KEX[0], CTR[0], mac) for mac in MACS),
    ],
)
async def test_each_algorithm_that_others_are_offered(bastion: Bastion, kex: str, cipher: str, mac: str) -> None:
    data = os.urandom(100_000)
    key = [f"{bastion.folder}/alice_key"]
    algorithms = {"kex_algs": [kex], "encryption_algs": [cipher], "mac_algs": [mac]}
    async with asyncssh.connect(
        "127.0.0.1", bastion.port, username=BUSY, client_keys=key, known_hosts=None, **algorithms
    ) as connection:
        done = await connection.run("cat", input=data, encoding=None)
        assert (done.stdout, done.exit_status) == (data, 0)


def test_openssh_gets_aes_gcm_and_reads_so_where_it_wants_something_else(bastion: Bastion) -> None:
    command = talkative(bastion.ssh_command(BUSY, "true", options=("-o", f"Ciphers={CTR[0]}")), "INFO")
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 255
    assert f"no matching cipher found. Their offer: {','.join(GCM)}".encode() in done.stderr


def test_an_old_client_that_knows_only_chacha20(bastion: Bastion, folder: Path, engine: Engine) -> None:
    options = ("-o", f"Ciphers={CHACHA20}")
    assert bastion.ssh(BUSY, "true", options=options).returncode == 255
    with serving(folder, engine.url, ssh={"chacha20": True}) as old:
        done = old.ssh(BUSY, "cat", options=options, stdin=b"in")
        assert (done.stdout, done.returncode) == (b"in", 0)
        assert old.ssh(BUSY, "echo in", options=("-o", f"Ciphers={CTR[2]}")).stdout == b"in\n"


def test_an_rsa_key_signs_with_sha2_only(folder: Path, engine: Engine) -> None:
    key = folder / "carol_key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "rsa", "-b", "2048", "-f", str(key)], check=True)
    with serving(folder, engine.url, access={"rules": [{"users": ["carol"], "apps": ["web"]}]}) as bastion:
        add = ["users", "add", "carol", "--password-stdin", "--authorized-keys", f"{key}.pub"]
        config = ["-c", f"{folder}/config.yaml"]
        subprocess.run([*BASTION, *add, *config], input=PASSWORD.encode(), check=True, capture_output=True)
        for name in ("rsa-sha2-256", "rsa-sha2-512"):
            options = ("-o", f"PubkeyAcceptedAlgorithms={name}")
            assert bastion.ssh("carol+web.busy.1", "true", options=options).returncode == 0
        old = f"""
import asyncio, asyncssh, asyncssh.connection
asyncssh.connection.SSHClientConnection._choose_signature_alg = lambda *_: True  # ssh-rsa, whatever the server says
async def main():
    async with asyncssh.connect("127.0.0.1", {bastion.port}, username="carol+web.busy.1", known_hosts=None,
                                client_keys=[{str(key)!r}], signature_algs=["ssh-rsa"]):
        pass
try:
    asyncio.run(main())
except asyncssh.PermissionDenied:
    print("denied")
"""
        done = subprocess.run([sys.executable, "-c", old], capture_output=True, timeout=30, check=False)
        assert done.stdout == b"denied\n", done.stderr


def test_a_piped_script_without_a_terminal(bastion: Bastion) -> None:
    script = b"echo one\nif false; then\n  echo never\nfi\ncd /tmp && pwd\ntty\necho three >&2\nexit 9\n"
    done = bastion.ssh(WEB, options=("-T",), stdin=script)
    assert (done.stdout, done.stderr, done.returncode) == (b"one\n/tmp\nnot a tty\n", b"three\n", 9)


def test_a_connection_without_any_channel_stays(bastion: Bastion, start: Start) -> None:
    """`ssh -N`, here as the master of a session that comes later."""
    control = ("-o", f"ControlPath={bastion.folder}/mux-n")
    client = start(bastion.ssh_command(BUSY, options=(*control, "-M", "-N")))
    bastion_side = bastion.folder / "mux-n"
    wait_until(bastion_side.exists, "ssh is signed in")
    done = bastion.ssh(BUSY, "echo in", options=control)
    assert done.stdout == b"in\n"
    assert client.poll() is None
    client.send_signal(signal.SIGTERM)
    client.wait(10)


@pytest.mark.parametrize("asks", ["client", "bastion"])
def test_an_idle_session_stays_while_one_side_asks_and_the_other_answers(
    bastion: Bastion, folder: Path, engine: Engine, start: Start, asks: str
) -> None:
    log = folder / "ssh.log"
    said = {"client": "send packet: type 80", "bastion": "rtype keepalive@openssh.com"}[asks]  # 80: RFC 4254 section 4
    with contextlib.ExitStack() as own:
        options: tuple[str, ...] = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
        if asks == "bastion":
            alive = {"client_alive_interval": 0.5, "client_alive_count_max": 1}
            bastion, options = own.enter_context(serving(folder, engine.url, ssh=alive)), ()
        command = talkative(bastion.ssh_command(BUSY, "cat", options=options), "DEBUG3")
        with log.open("wb") as errors:
            client = start(command, stderr=errors)
        wait_until(lambda: log.read_text(errors="replace").count(said) >= 4, "it has been idle for a while")
        assert client.poll() is None
        out, _ = client.communicate(b"still here", timeout=10)
        assert (out, client.returncode) == (b"still here", 0)
