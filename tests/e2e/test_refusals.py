"""What is refused is refused at once, with a sentence, and the connection stays usable. Stock clients throughout."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.servers.bastion import Bastion
from tests.servers.process import accepts, free_port, wait_until

BUSY = "alice+web.busy.1"
HOST = f"{BUSY}@127.0.0.1"
NOT_HERE = b"is not possible through this bastion"


@pytest.fixture
def shared(bastion: Bastion) -> Iterator[tuple[str, ...]]:
    """Options that put all clients on one connection, which is open already."""
    options = ("-o", f"ControlPath={bastion.folder}/mux-refusals", "-o", "ControlMaster=auto")
    options += ("-o", "ControlPersist=60")
    assert bastion.ssh(BUSY, "true", options=options).returncode == 0
    yield options
    leave = [*bastion.ssh_command(BUSY, options=options), "-O", "exit"]
    subprocess.run(leave, capture_output=True, check=False)


def flags(bastion: Bastion, options: tuple[str, ...] = ()) -> list[str]:
    """What ssh, scp and sftp all understand: the command's options without the ssh in front and the host at the end."""
    words = bastion.ssh_command(BUSY, options=options)[1:-1]
    port = words.index("-p")
    return [*words[:port], "-o", f"Port={bastion.port}", *words[port + 2 :]]


def talkative(command: list[str]) -> list[str]:
    """With what a person sees who has not asked for silence."""
    return ["LogLevel=INFO" if word == "LogLevel=ERROR" else word for word in command]


def run(command: list[str], **kwargs: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, timeout=30, check=False, **kwargs)  # type: ignore[call-overload,no-any-return]


def denied(bastion: Bastion, detail: str, count: int = 1) -> list[dict[str, object]]:
    """The refusals of something not allowed whose detail has `detail`, once there are `count` of them."""

    def found() -> list[dict[str, object]]:
        events = bastion.events("access.denied", reason="not_allowed", user="alice")
        return [event for event in events if detail in event["detail"]]

    wait_until(lambda: len(found()) >= count, f"access.denied with {detail!r}")
    return found()


def still_usable(bastion: Bastion, options: tuple[str, ...], event: dict[str, object]) -> None:
    """A command runs on the very connection on which `event` happened."""
    done = bastion.ssh(BUSY, "echo usable", options=options)
    assert (done.stdout, done.stderr, done.returncode) == (b"usable\n", b"", 0)
    assert bastion.events("session.start")[-1]["connection_id"] == event["connection_id"]


COPIES = {
    "scp": "scp {flags} {file} {host}:/tmp/copied",
    "scp -O": "scp -O {flags} {file} {host}:/tmp/copied",
    "scp -O -r from": "scp -O -r {flags} {host}:/etc {file}",
    "scp from": "scp {flags} {host}:/etc/passwd {file}",
    "sftp": "sftp {flags} {host}",
    "sftp -s": "sftp -s /usr/lib/openssh/sftp-server {flags} {host}",
    "rsync": "rsync -a -e {ssh} {file} {host}:/tmp/copied",
    "rsync from": "rsync -a -e {ssh} {host}:/etc/ {file}",
}


@pytest.mark.parametrize("client", COPIES)
def test_copying_files(bastion: Bastion, shared: tuple[str, ...], tmp_path: Path, client: str) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    before = len(bastion.events("access.denied"))
    options = flags(bastion, shared)
    words = {"flags": shlex.join(options), "ssh": shlex.quote(shlex.join(["ssh", *options])), "host": HOST}
    done = run(shlex.split(COPIES[client].format(file=file, **words)))
    assert NOT_HERE in done.stderr
    assert b"tar" in done.stderr  # what can be done instead
    assert done.returncode not in (0, None)
    wait_until(lambda: len(bastion.events("access.denied")) > before, "the refusal is logged")
    (event,) = bastion.events("access.denied")[before:]
    assert (event["reason"], event["user"], event["address"]) == ("not_allowed", "alice", "web.busy.1")
    still_usable(bastion, shared, event)
    assert bastion.ssh(BUSY, "ls /tmp/copied").returncode != 0
    assert file.read_text() == "content"


@pytest.mark.parametrize("command", ["echo scp -t", "scp=1; echo $scp", "echo rsync --server", ": sftp-server", "true"])
def test_what_only_looks_like_a_copy_runs(bastion: Bastion, command: str) -> None:
    assert bastion.ssh(BUSY, command).returncode == 0


def test_what_the_sentence_recommends_works(bastion: Bastion, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(bytes(range(256)))
    sent = run(["tar", "c", "-C", str(tmp_path), "sub"])
    assert bastion.ssh(BUSY, "rm -rf /tmp/sub; tar x -C /tmp", stdin=sent.stdout).returncode == 0
    back = bastion.ssh(BUSY, "tar c -C /tmp sub")
    assert run(["tar", "xO", "sub/file"], input=back.stdout).stdout == bytes(range(256))


def test_a_port_of_the_client_is_not_forwarded(bastion: Bastion, start: Start) -> None:
    """-L and -D listen on the client's side: the connection is refused when somebody comes, and stays."""
    local, socks = free_port(), free_port()
    options = ("-o", "ExitOnForwardFailure=yes", "-L", f"{local}:127.0.0.1:7001", "-D", str(socks))
    client = start(talkative(bastion.ssh_command(BUSY, "cat", options=options)), stderr=subprocess.PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stderr is not None
    wait_until(lambda: accepts(local) and accepts(socks), "ssh listens")
    with socket.create_connection(("127.0.0.1", local)) as forwarded:
        forwarded.settimeout(15)
        assert forwarded.recv(1) == b""
    with socket.create_connection(("127.0.0.1", socks)) as forwarded:
        forwarded.settimeout(15)
        forwarded.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\0\0\1" + (7002).to_bytes(2, "big"))
        while forwarded.recv(100):
            pass
    denied(bastion, "direct-tcpip to 127.0.0.1:7001")
    denied(bastion, "direct-tcpip to 127.0.0.1:7002")
    out, errors = client.communicate(b"usable", timeout=15)
    assert (out, client.returncode) == (b"usable", 0)
    assert b"administratively prohibited: port forwarding " + NOT_HERE in errors


@pytest.mark.parametrize("where", ["7003:127.0.0.1:22", "0:127.0.0.1:22", "/tmp/socket:127.0.0.1:22"])
def test_a_port_of_the_bastion_is_not_forwarded(bastion: Bastion, where: str) -> None:
    done = run(talkative(bastion.ssh_command(BUSY, "echo usable", options=("-R", where))))
    assert done.stdout == b"usable\n"
    assert b"remote port forwarding failed" in done.stderr or b"remote forward failure" in done.stderr
    denied(
        bastion, "streamlocal-forward of /tmp/socket" if "socket" in where else f"tcpip-forward of localhost:{where[0]}"
    )
    options = ("-R", where, "-o", "ExitOnForwardFailure=yes")
    assert bastion.ssh(BUSY, "echo usable", options=options).returncode == 255


def test_the_bastion_is_no_jump_host(bastion: Bastion, tmp_path: Path) -> None:
    before = len(bastion.events("session.start"))
    words = talkative(bastion.ssh_command(BUSY, options=("-W", "127.0.0.1:7004")))
    done = run(words)
    assert NOT_HERE in done.stderr
    assert done.returncode == 255
    denied(bastion, "direct-tcpip to 127.0.0.1:7004")
    config = tmp_path / "ssh_config"
    options = flags(bastion)[2:]  # all but -F none
    pairs = [word.partition("=") for word in talkative(options) if "=" in word]
    lines = [f"{name} {value}" for name, _, value in pairs if name != "Port"]
    config.write_text("\n".join(["Host *", *lines, f"IdentityFile {bastion.folder}/alice_key"]))
    done = run(["ssh", "-F", str(config), "-J", f"{HOST}:{bastion.port}", "-p", "7005", "alice@127.0.0.1", "true"])
    assert NOT_HERE in done.stderr
    assert done.returncode == 255
    denied(bastion, "direct-tcpip to 127.0.0.1:7005")
    assert len(bastion.events("session.start")) == before


def test_the_agent_is_not_forwarded(bastion: Bastion, start: Start, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    start(["ssh-agent", "-D", "-a", str(agent)])
    wait_until(agent.exists, "the agent listens")
    command = bastion.ssh_command(BUSY, "echo [$SSH_AUTH_SOCK]; exit 3", options=("-A",))
    done = run(command, env={**os.environ, "SSH_AUTH_SOCK": str(agent)})
    assert (done.stdout, done.returncode) == (b"[]\n", 3)
    assert done.stderr.count(b"agent forwarding " + NOT_HERE) == 1
    denied(bastion, "agent forwarding")


def test_x11_is_not_forwarded(bastion: Bastion) -> None:
    command = bastion.ssh_command(BUSY, "echo [$DISPLAY]; exit 3", options=("-Y", "-o", "XAuthLocation=/nowhere"))
    done = run(command, env={**os.environ, "DISPLAY": "127.0.0.1:99"})
    assert (done.stdout, done.returncode) == (b"[]\n", 3)
    assert done.stderr.count(b"X11 forwarding " + NOT_HERE) == 1
    denied(bastion, "X11 forwarding")


def test_a_socket_of_the_bastion_is_not_forwarded(bastion: Bastion, shared: tuple[str, ...]) -> None:
    local = free_port()
    client = (*shared[:2], "-O", "forward", "-L", f"{local}:/run/docker.sock")
    assert run(bastion.ssh_command(BUSY, options=client)).returncode == 0  # ssh itself listens
    with socket.create_connection(("127.0.0.1", local)) as forwarded:
        forwarded.settimeout(15)
        assert forwarded.recv(1) == b""
    (event,) = denied(bastion, "direct-streamlocal to /run/docker.sock")
    still_usable(bastion, shared, event)


def test_an_unknown_subsystem(bastion: Bastion, shared: tuple[str, ...]) -> None:
    subsystem = "net\x1b[31mconf"
    done = bastion.ssh(BUSY, subsystem, options=("-s",))
    assert b"subsystem request failed" in done.stderr
    assert done.returncode == 255
    assert bastion.ssh(BUSY, subsystem, options=(*shared, "-s")).returncode == 255
    *_, event = denied(bastion, "subsystem net\x1b[31mconf", 2)
    still_usable(bastion, shared, event)
