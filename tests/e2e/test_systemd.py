"""systemd/ under a systemd that was booted: installed by the commands of its README, served, rotated, drained."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from docker.models.containers import Container

from tests.e2e.conftest import Start
from tests.e2e.terminal import on_terminal
from tests.pages import blocks
from tests.servers.engine import Engine
from tests.servers.image import ROOT, SYSTEMD, build_of, load_packages
from tests.servers.machine import start_machine
from tests.servers.process import wait_until

pytestmark = pytest.mark.timeout(900)  # the first build on a machine fetches some 100 MB

INSTALLED, *COMMANDS = blocks((ROOT / "systemd/README.md").read_text(), "sh")[0].text.splitlines()
PASSWORD = "correct horse"
WEB = "alice+boot.web.1"

# What a process of the unit must not be able to do, not even root's; each line says so where it can.
PROBE = r"""
for folder in /usr /etc /etc/bastion /opt/bastion /home /sys /var/cache; do
    touch $folder/x && echo "wrote below $folder"
done
ls /root/.bashrc && echo "read /root"
ls /proc/meminfo && echo "saw the machine's memory"
[ -e /dev/kmsg ] && echo "saw /dev/kmsg"
unshare --net true && echo "made a name space"
mount --bind /tmp /tmp && echo "mounted"
chown 1 /tmp && echo "gave a file away"
hostname other && echo "set the host's name"
chmod u+s $STATE_DIRECTORY && echo "set a set-user-id bit"
nice -n -5 true 2>&1 | grep -q "denied\|not permitted" || echo "has priority"
python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)' && echo "wrote and ran"
python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)' && echo "opened another kind of socket"
touch $STATE_DIRECTORY/x && touch $LOGS_DIRECTORY/x && echo done
"""

# The unit's sandbox around that: its last word counts. Folders of its own, or systemd would give the bastion's to root.
PROBES = """
[Service]
Type=oneshot
Restart=no
User=root
Group=root
StateDirectory=
StateDirectory=probe
LogsDirectory=
LogsDirectory=probe
StandardOutput=file:/run/probe
StandardError=null
ExecStart=
ExecStart=/bin/sh /usr/local/bin/probe
"""


@dataclass
class Machine:
    """A booted Debian with the bastion's unit; `container` is it."""

    container: Container
    engine: Engine

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return ["docker", "-H", self.engine.url, "exec", *options, self.container.id, *words]

    def run(self, *words: str, data: str = "") -> str:
        """What it prints; fails where it fails."""
        done = subprocess.run(
            self.command(*words, options=("-i",)),
            capture_output=True,
            text=True,
            input=data,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ssh_command(self, *words: str, tty: bool = False) -> list[str]:
        """A stock ssh beside the bastion: in the machine's network, which has nothing but 127.0.0.1."""
        pid = self.container.attrs["State"]["Pid"]
        options = ["-F", "none", "-p", "2222", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]
        options += ["-o", "LogLevel=ERROR", *(["-tt"] if tty else [])]
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        return ["sshpass", "-p", PASSWORD, *inside, "ssh", *options, f"{WEB}@127.0.0.1", *words]

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.run(
            "sh", "-c", "zcat -f /var/log/bastion/audit.jsonl /var/log/bastion/audit.jsonl-* || true"
        ).splitlines()
        return sorted((e for e in map(json.loads, lines) if name in ("", e["event"])), key=lambda event: event["seq"])

    def wait_until_it_listens(self) -> None:
        probe = self.command("bash", "-c", "</dev/tcp/127.0.0.1/2222")
        wait_until(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0, "it listens")

    def main_pid(self) -> str:
        return self.run("systemctl", "show", "--property=MainPID", "--value", "bastion").strip()


@pytest.fixture(scope="session")
def machine(engine: Engine) -> Iterator[Machine]:
    """Installed, with the user alice, and running."""
    load_packages(engine)
    files = {"Dockerfile": f"FROM {SYSTEMD}\nCOPY . /source\nWORKDIR /source\nRUN {INSTALLED}\n".encode()}
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("systemd/*"), *ROOT.glob("bastion/**/*.*")]:
        if "__pycache__" not in path.parts:
            files[str(path.relative_to(ROOT))] = path.read_bytes()
    build_of(engine, "bastion-test/booted:1", files)
    volumes = {engine.url.removeprefix("unix://"): {"bind": "/run/docker.sock", "mode": "rw"}}
    container = start_machine(
        engine,
        "bastion-test/booted:1",
        "/sbin/init",
        tmpfs={"/run": "", "/tmp": ""},
        volumes=volumes,
        hostname="booted",
    )
    try:
        container.reload()
        booted = Machine(container, engine)
        state = booted.command("systemctl", "is-system-running", "--wait")
        wait_until(
            lambda: subprocess.run(state, check=False, capture_output=True).stdout == b"running\n",
            "systemd has booted",
            60,
        )
        script = "set -ex; groupadd --system docker; chgrp docker /run/docker.sock\n" + "\n".join(COMMANDS)
        with on_terminal(booted.command("bash", "-c", script, options=("-it",))) as terminal:
            for prompt in (rb"Password: ", rb"again: "):
                terminal.expect(prompt, 60)
                terminal.type(PASSWORD.encode() + b"\n")
            assert terminal.wait(60) == 0, terminal.transcript.decode()
        booted.wait_until_it_listens()
        yield booted
    finally:
        container.remove(force=True)


@pytest.fixture(scope="session")
def web(engine: Engine) -> Container:
    return engine.app("boot", "web", 1)


def test_ssh_leads_through_it_and_all_is_kept(machine: Machine, web: Container) -> None:
    done = subprocess.run(machine.ssh_command("cat; exit 3"), input=b"in\0\xff", capture_output=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"in\0\xff", b"", 3)
    with on_terminal(machine.ssh_command(tty=True), columns=101, rows=41) as terminal:
        terminal.type(b"stty size; exit 4\r")
        terminal.expect(rb"41 101\r\n")
        assert terminal.wait() == 4
    wait_until(lambda: len(machine.events("session.end")) == 2, "both sessions have ended")
    find = "find /var/lib/bastion /var/log/bastion -name '*.cast.zst' -printf '%m %u\n'"
    wait_until(lambda: machine.run("sh", "-c", find) == "600 bastion\n" * 2, "both recordings are compressed")
    priorities = machine.run("ps", "-L", "-o", "ni=", "-p", machine.main_pid()).split()
    assert sorted(set(priorities)) == ["0", "10"], "what compresses them gives way to the rest"
    rows = machine.run("runuser", "-u", "bastion", "--", "/opt/bastion/bin/bastion", "sessions", "list", "--json")
    assert [json.loads(row)["status"] for row in rows.splitlines()] == ["ended", "ended"]
    session = machine.events("session.end")[-1]["session_id"]
    played = machine.run(
        "runuser", "-u", "bastion", "--", "/opt/bastion/bin/bastion", "play", str(session), "--speed", "9"
    )
    assert "41 101" in played
    assert int(machine.run("cat", "/var/lib/bastion/state/spooled").split()[0]) > 0, "it is known what was spooled"
    assert "Traceback" not in machine.run("journalctl", "--unit=bastion", "--output=cat")


def test_the_sandbox_holds(machine: Machine) -> None:
    status = dict(
        line.split(":\t", 1) for line in machine.run("cat", f"/proc/{machine.main_pid()}/status").splitlines()
    )
    assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("1", "2", "0077")
    assert {int(status[of], 16) for of in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    mounts = machine.run("cat", f"/proc/{machine.main_pid()}/mounts").splitlines()
    (proc,) = (line for line in mounts if line.startswith("proc /proc "))
    assert "hidepid=invisible" in proc
    machine.run("sh", "-c", "cat > /usr/local/bin/probe", data=PROBE)
    unit = (ROOT / "systemd/bastion.service").read_text()
    machine.run("sh", "-c", "cat > /etc/systemd/system/probe.service", data=unit)
    machine.run("mkdir", "-p", "/etc/systemd/system/probe.service.d")
    machine.run("sh", "-c", "cat > /etc/systemd/system/probe.service.d/probe.conf", data=PROBES)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe")
    assert machine.run("cat", "/run/probe") == "done\n"


def test_logrotate_moves_the_log_under_load_and_nothing_is_lost(machine: Machine, web: Container, start: Start) -> None:
    clients = [start(machine.ssh_command(f"for i in $(seq 40); do echo {n}; sleep 0.02; done")) for n in range(3)]
    second = ""
    for number in range(3):
        wait_until(lambda: machine.run("date", "+%S") != second, "the next file has another name")  # noqa: B023
        machine.run("logrotate", "--force", "/etc/logrotate.d/bastion")
        second = machine.run("date", "+%S")
        wait_until(lambda: len(machine.events("audit.reopened")) == number + 1, "it has been told")  # noqa: B023
        subprocess.run(machine.ssh_command("true"), check=True)
    for client in clients:
        client.communicate(timeout=30)
    numbers = [event["seq"] for event in machine.events("")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_it_is_reloaded_while_sessions_go_on_and_drained_when_it_is_stopped(
    machine: Machine, web: Container, engine: Engine, start: Start
) -> None:
    client = start(machine.ssh_command("echo here; read x; echo $x; sleep 8881"), stderr=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdin is not None
    assert client.stdout.readline() == b"here\n"
    before = len(machine.events("audit.reopened"))
    machine.run("systemctl", "reload", "bastion")
    wait_until(lambda: len(machine.events("audit.reopened")) == before + 1, "it has been told")
    client.stdin.write(b"goes on\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"goes on\n"
    machine.run("systemctl", "stop", "bastion")
    assert b"shutting down" in client.communicate(timeout=15)[1]
    assert client.returncode == 255
    shown = machine.run("systemctl", "show", "--property=Result,ExecMainStatus,ActiveState", "bastion").split()
    assert sorted(shown) == ["ActiveState=inactive", "ExecMainStatus=0", "Result=success"]
    assert not [line for line in engine.processes(web) if "8881" in line]
    machine.run("systemctl", "start", "bastion")
    machine.wait_until_it_listens()
    assert subprocess.run(machine.ssh_command("echo again"), capture_output=True, check=False).stdout == b"again\n"
