"""Which container is meant, and what is said where none or several are."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from tests.e2e.terminal import on_terminal
from tests.servers.bastion import Bastion
from tests.servers.engine import Engine
from tests.servers.process import wait_until

PICK = "alice+pick"
CHOICES = rb"container> .*pick\.one\.1.*pick\.three\.3.*pick\.two\.2.*3 of 3"
LEFT = rb"\x1b\[\?1049l"  # the alternate screen


@contextlib.contextmanager
def known(bastion: Bastion, *containers: Container) -> Iterator[None]:
    """Until the end; the bastion has heard of them when this begins."""
    try:
        for container in containers:
            labels = container.labels
            address = ".".join(labels[f"bastion.{part}"] for part in ("app", "proc", "instance"))
            login = f"{labels['bastion.owners']}+{address}"
            wait_until(lambda login=login: b"no container" not in bastion.ssh(login, "true").stderr, login)  # type: ignore[misc]
        yield
    finally:
        for container in containers:
            container.remove(force=True)


@pytest.fixture(scope="module")
def pick(bastion: Bastion, engine: Engine) -> Iterator[None]:
    """alice's pick.one.1, pick.two.2 and pick.three.3; $WHICH tells."""
    names = ("one", "two", "three")
    made = [engine.app("pick", name, i, environment={"WHICH": name}) for i, name in enumerate(names, 1)]
    with known(bastion, *made):
        yield


# Not there, or not yours?


@pytest.mark.parametrize("options", [(), ("-tt",)], ids=["no terminal", "terminal"])
@pytest.mark.parametrize("words", [(), ("true",)], ids=["shell", "command"])
def test_not_found_and_not_yours_read_the_same(
    bastion: Bastion, engine: Engine, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    protected = engine.app("core", "db", 1, labels={"bastion.protected": "true"})
    reasons = {"vault": "not_owner", "vapor": "no_such_container", "core": "protected_container"}
    wait_until(lambda: denied(bastion, "alice+core.db.1")[1] == "protected_container", "the bastion has heard of it")
    for address in ("{}.db.1", "{}.db", "{}"):
        read = {}
        for app, reason in reasons.items():
            name = address.format(app)
            done, why = denied(bastion, f"alice+{name}", *words, options=options)
            assert why == reason
            read[app] = (done.stdout + done.stderr).replace(name.encode(), b"NAME"), done.returncode
        assert read["vault"] == read["vapor"] == read["core"]
        text, status = read["vault"]
        assert text.strip() == b"There is no container NAME that you may enter."
        assert status == 1
    protected.remove(force=True)


def denied(
    bastion: Bastion, login: str, *words: str, options: tuple[str, ...] = ()
) -> tuple["subprocess.CompletedProcess[bytes]", object]:
    """What the user saw, and the reason in the audit log, which is written after they were told."""
    before = len(bastion.events("access.denied"))
    done = bastion.ssh(login, *words, options=options)
    wait_until(lambda: len(bastion.events("access.denied")) > before, "access.denied")
    (event,) = bastion.events("access.denied")[before:]
    assert event["address"] == login.partition("+")[2]
    return done, event["reason"]


def test_the_bastions_own_container_is_in_no_list(bastion: Bastion, engine: Engine) -> None:
    protected = engine.app("core", "web", 1, labels={"bastion.protected": "true"})
    wait_until(lambda: denied(bastion, "alice+core.web.1")[1] == "protected_container", "the bastion has heard of it")
    assert b"core" not in bastion.ssh("alice").stderr
    protected.remove(force=True)


def test_nobody_edits_the_trail_through_a_mount(bastion: Bastion, engine: Engine) -> None:
    (bastion.folder / "recordings").mkdir(0o700, exist_ok=True)  # the engine would make it, for everybody
    for proc, source in (("trail", bastion.folder / "recordings"), ("socket", engine.folder / "docker.sock")):
        mounting = engine.app("core", proc, 1, volumes=[f"{source}:/mnt"])  # and at once, before any listing knows
        wait_until(lambda: denied(bastion, f"alice+core.{proc}.1")[1] == "protected_container", "heard of it")  # noqa: B023
        done, _ = denied(bastion, f"alice+core.{proc}", "touch", "/mnt/x")
        assert done.stderr.strip() == f"There is no container core.{proc} that you may enter.".encode()
        mounting.remove(force=True)


# Several fit, or none was named.


@pytest.mark.parametrize("login", [PICK, "alice", "alice+"])
@pytest.mark.parametrize("words", [(), ("echo ran",)], ids=["shell", "command"])
def test_without_a_terminal_there_is_a_list(bastion: Bastion, pick: None, login: str, words: tuple[str, ...]) -> None:
    done = bastion.ssh(login, *words, key="alice")
    assert (done.stdout, done.returncode) == (b"", 2)
    first, *lines = done.stderr.decode().splitlines()
    assert first == "Say which container: ssh USER+ADDRESS@..., with one of these addresses:"
    listed = [line.split()[:3] for line in lines if line.startswith("pick")]
    image = "bastion-test/busybox:1"
    assert listed == [[f"pick.{name}", "running", image] for name in ("one.1", "three.3", "two.2")]
    assert (len(lines) == 3) == (login == PICK)
    assert "vault" not in done.stderr.decode()
    bastion.wait_for_event("access.denied", reason="ambiguous_address")


def test_a_command_on_a_terminal_is_not_run_in_a_guess(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK, "echo ran", options=("-t",))) as terminal:
        terminal.expect(rb"Say which container.*\r\npick\.one\.1 .*\r\npick\.two\.2 [^\n]*\r\n")
        assert terminal.wait() == 2
        assert b"ran" not in terminal.seen


def test_whoever_may_enter_nothing_is_told_so(bastion: Bastion, engine: Engine, pick: None) -> None:
    only = engine.app("pick", "four", 4, owners="bob")
    done = bastion.ssh("bob+pick.one.1", "true")
    assert b"There is no container pick.one.1 that you may enter." in done.stderr
    only.remove(force=True)


@pytest.mark.parametrize("login", ["alice+single.worker", "alice+single", "alice+single.1"])
def test_an_address_in_part_means_the_one_running_that_fits_and_is_yours(
    bastion: Bastion, engine: Engine, login: str
) -> None:
    mine = engine.app("single", "worker", 1, environment={"WHICH": "mine"})
    theirs = engine.app("single", "worker", 2, owners="bob", environment={"WHICH": "theirs"})
    stopped = engine.app("single", "worker", 3)
    stopped.kill()
    with known(bastion, mine, theirs):
        assert bastion.ssh(login, "echo $WHICH").stdout == b"mine\n"
        assert bastion.ssh(login.replace("alice", "bob").replace(".1", ".2"), "echo $WHICH").stdout == b"theirs\n"
        assert b"is not running" in bastion.ssh("alice+single.worker.3", "true").stderr
    stopped.remove(force=True)


# The picker.


def test_arrows_and_enter(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.expect(CHOICES)
        terminal.type(b"\x1b[B\x1b[B\x1b[A\r")
        terminal.expect(LEFT)
        terminal.expect(rb"[#$] ")
        terminal.type(b"echo in-$WHICH; exit 5\r")
        terminal.expect(rb"in-three\r\n")
        assert terminal.wait() == 5
    bastion.wait_for_event("session.end", address="pick.three.3", exit_status=5)


def test_a_filter_and_what_is_typed_ahead_of_the_shell(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.expect(CHOICES)
        terminal.type(b"two\recho in-$WHICH; stty size; exit 6\r")
        terminal.expect(rb"in-two\r\n24 80\r\n")
        assert terminal.wait() == 6


def test_what_is_typed_before_the_picker_is_there_counts(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.type(b"thr\recho in-$WHICH; exit 8\r")
        terminal.expect(rb"in-three\r\n")
        assert terminal.wait() == 8


def test_a_new_size_while_choosing(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.expect(CHOICES)
        terminal.resize(100, 10)
        terminal.expect(CHOICES)
        terminal.type(b"one\rstty size\r")
        terminal.expect(rb"10 100\r\n")


@pytest.mark.parametrize("key", [b"\x1b", b"\x03", b"\x04"], ids=["Esc", "ctrl-C", "ctrl-D"])
def test_leaving_without_a_choice(bastion: Bastion, pick: None, key: bytes) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.expect(CHOICES)
        terminal.type(key)
        terminal.expect(LEFT)
        terminal.expect(rb"Nothing was chosen\.\r\n")
        assert terminal.wait() == 2


def test_a_terminal_that_can_not_move_its_cursor(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK), term="dumb") as terminal:
        terminal.expect(rb"1  pick\.one\.1.*2  pick\.three\.3.*3  pick\.two\.2.*number: ")
        terminal.type(b"3\r")
        terminal.expect(rb"[#$] ")
        terminal.type(b"echo in-$WHICH; exit 9\r")
        terminal.expect(rb"in-two\r\n")
        assert terminal.wait() == 9


def test_a_choice_that_stops_running_meanwhile(bastion: Bastion, engine: Engine) -> None:
    made = [engine.app("fading", name, 1) for name in ("first", "second")]
    with known(bastion, *made), on_terminal(bastion.ssh_command("alice+fading")) as terminal:
        terminal.expect(rb"2 of 2")
        made[0].kill()
        wait_until(lambda: b"not running" in bastion.ssh("alice+fading.first.1", "true").stderr, "the bastion knows")
        terminal.type(b"\r")
        terminal.expect(rb"The container fading\.first\.1 is not running\.\r\n")
        assert terminal.wait() == 1


def test_a_client_that_vanishes_while_choosing(bastion: Bastion, pick: None) -> None:
    with on_terminal(bastion.ssh_command(PICK)) as terminal:
        terminal.expect(CHOICES)
    bastion.wait_for_event("connection.close")
    assert bastion.ssh("alice+pick.one.1", "echo $WHICH").stdout == b"one\n"


# A shell without a terminal.


def test_a_script_on_stdin(bastion: Bastion, pick: None) -> None:
    done = bastion.ssh("alice+pick.one.1", options=("-T",), stdin=b"x=$((6*7))\ntty; echo $x >&2\nexit 4\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"not a tty\n", b"42\n", 4)
