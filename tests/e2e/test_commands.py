"""`ssh host command`: what goes in, what comes out, and how it ended. A stock ssh, a real engine."""

import hashlib
import os
import subprocess

import pytest

from tests.e2e.conftest import Start
from tests.servers.bastion import Bastion
from tests.servers.engine import NO_SHELL, Engine

WEB = "alice+web.worker.1"
BUSY = "alice+web.busy.1"


@pytest.mark.parametrize("login", [WEB, BUSY])
@pytest.mark.parametrize("status", [0, 1, 42, 127, 130, 137, 255])
def test_the_exit_status_is_the_programs(bastion: Bastion, login: str, status: int) -> None:
    assert bastion.ssh(login, f"exit {status}").returncode == status


def test_a_command_is_run_by_a_shell(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "echo one | sed s/one/two/; echo $((1+2)) '$HOME' > /dev/stderr")
    assert (done.stdout, done.stderr, done.returncode) == (b"two\n", b"3 $HOME\n", 0)


def test_stdout_and_stderr_stay_apart_and_whole(bastion: Bastion) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    done = bastion.ssh(BUSY, script)
    assert done.stdout == b"".join(b"out %d\n" % i for i in range(3000))
    assert done.stderr == b"".join(b"err %d\n" % i for i in range(3000))


@pytest.mark.parametrize("size", [0, 1, 255, 5_000_000])
def test_bytes_pass_unchanged_both_ways(bastion: Bastion, size: int) -> None:
    data = (bytes(range(256)) + os.urandom(size))[:size]
    done = bastion.ssh(BUSY, "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.returncode == 0


def test_the_end_of_input_reaches_the_program_and_its_last_words_the_client(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "wc -c; echo after; exit 3", stdin=b"x" * 100_000)
    assert (done.stdout.split(), done.returncode) == ([b"100000", b"after"], 3)


def test_a_program_that_reads_nothing_ends_all_the_same(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "exec 0<&-; echo done; exit 4", stdin=b"x" * 3_000_000)
    assert (done.stdout, done.returncode) == (b"done\n", 4)


def test_a_program_that_closes_its_output_still_reads_and_its_status_counts(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "exec 1>&- 2>&-; cat > /tmp/kept; exit 5", stdin=b"y" * 300_000)
    assert done.returncode == 5
    assert bastion.ssh(BUSY, "wc -c < /tmp/kept").stdout.strip() == b"300000"


def test_no_input_at_all(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "cat; echo end", options=("-n",))
    assert (done.stdout, done.returncode) == (b"end\n", 0)


def test_output_goes_on_after_the_client_has_closed_its_input(bastion: Bastion, start: Start) -> None:
    command = bastion.ssh_command(
        BUSY, "cat > /dev/null; i=0; while [ $i -lt 5 ]; do echo $i; sleep 0.1; i=$((i+1)); done"
    )
    out, _ = start(command).communicate(b"input", timeout=20)
    assert out == b"0\n1\n2\n3\n4\n"


def test_environment_only_what_the_configuration_lists(bastion: Bastion) -> None:
    env = {**os.environ, "LANG": "de_DE.UTF-8", "LC_TIME": "C", "SECRET": "x", "BASTION_SESSION": "forged"}
    command = bastion.ssh_command(
        BUSY,
        "echo $LANG $LC_TIME [$SECRET]; env | grep -c forged",
        options=("-o", "SendEnv=LANG LC_* SECRET BASTION_*"),
    )
    done = subprocess.run(command, env=env, capture_output=True, timeout=20, check=False)
    assert done.stdout == b"de_DE.UTF-8 C []\n0\n"


def test_an_image_without_bash_gets_sh_and_one_without_any_shell_says_so(bastion: Bastion, engine: Engine) -> None:
    engine.app("bare", "main", 1, image=NO_SHELL)
    assert bastion.ssh(WEB, "echo $0").returncode == 0
    done = bastion.ssh("alice+bare.main.1", "echo hi")
    assert done.returncode == 127
    assert b"no shell" in done.stderr
    assert done.stdout == b""
    event = bastion.wait_for_event("session.end", address="bare.main.1")
    assert event["reason"] == "no_shell"


def test_background_children_hold_the_session_as_long_as_they_hold_its_output(bastion: Bastion) -> None:
    done = bastion.ssh(BUSY, "(sleep 1; echo late) & echo early")
    assert done.stdout == b"early\nlate\n"


def test_user_and_workdir_labels(bastion: Bastion, engine: Engine) -> None:
    engine.app("labelled", "main", 1, labels={"bastion.user": "app", "bastion.workdir": "/tmp"})
    assert bastion.ssh("alice+labelled.main.1", "id -un; pwd").stdout == b"app\n/tmp\n"


def test_ten_commands_at_once_on_one_connection(bastion: Bastion, start: Start) -> None:
    control = ("-o", f"ControlPath={bastion.folder}/mux", "-o", "ControlMaster=auto", "-o", "ControlPersist=30")
    try:
        assert bastion.ssh(BUSY, "true", options=control).returncode == 0
        clients = [
            start(
                bastion.ssh_command(BUSY, f"sleep 0.5; echo {i}; exit {i}", options=control),
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
            for i in range(10)
        ]
        for i, client in enumerate(clients):
            out, _ = client.communicate(timeout=30)
            assert (out, client.returncode) == (b"%d\n" % i, i)
        connections = {e["connection_id"] for e in bastion.events("session.start")[-10:]}
        assert len(connections) == 1
    finally:
        subprocess.run([*bastion.ssh_command(BUSY, options=control), "-O", "exit"], capture_output=True, check=False)


def test_rekeying_in_the_middle(bastion: Bastion) -> None:
    data = os.urandom(20_000_000)
    done = bastion.ssh(BUSY, "cat", stdin=data, options=("-o", "RekeyLimit=1M"))
    assert done.stdout == data
