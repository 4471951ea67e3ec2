"""Redaction of what real programs make of real keys, on a pseudo-terminal of this machine."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bastion.recording.asciicast import WITHHELD, Code, split_text
from bastion.recording.redaction import Redactor

PROMPT = "ready$ "
LEFT = "\x1b[?2004l\r"  # the last that bash says before a program runs: with half of it unread, keys come too early


class Typist:
    """Types on a program's terminal; everything passes the redactor in the order that a recorder sees it in."""

    def __init__(self, *command: str, home: Path) -> None:
        self.told: list[tuple[Code, str]] = []
        self.seen = ""
        self._redactor = Redactor()
        self._held = b""
        environment = {
            "TERM": "xterm",
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PS1": PROMPT,
            "LC_ALL": "C.UTF-8",
        }
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=home, start_new_session=True
        )
        os.close(slave)

    def type(self, text: str, *, until: str) -> None:
        """In one piece; then waits for `until` in the output that follows."""
        self.told += self._redactor.input(time.monotonic(), text)
        self.seen = ""
        os.write(self._master, text.encode())
        self.wait(until)

    def keys(self, text: str) -> None:
        """One by one, waiting for the echo of each."""
        for key in text:
            self.type(key, until=key)

    def wait(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert select.select([self._master], [], [], deadline - time.monotonic())[0], (text, self.seen)
            shown, self._held = split_text(self._held + os.read(self._master, 65536))
            self.seen += shown
            self.told += self._redactor.output(time.monotonic(), shown)

    def wait_until_it_reads(self, *, echo: bool) -> None:
        """Lines, that is: a key that comes before the program has set the terminal's mode means something else."""
        deadline = time.monotonic() + 20
        while (flags := termios.tcgetattr(self._master)[3]) & termios.ICANON == 0 or bool(flags & termios.ECHO) != echo:
            assert time.monotonic() < deadline, flags
            time.sleep(0.002)

    def input(self) -> str:
        """As the recording tells it."""
        told = self.told + self._redactor.finish()
        return "".join(WITHHELD if code is Code.REDACTED else text for code, text in told if code is not Code.PASSED_ON)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Typist]]:
    typists: list[Typist] = []

    def started(*command: str) -> Typist:
        typists.append(Typist(*command, home=tmp_path))
        return typists[-1]

    yield started
    for typist in typists:
        typist.close()


@pytest.fixture
def bash(start: Callable[..., Typist]) -> Typist:
    typist = start("bash", "--norc", "--noprofile", "-i")
    typist.wait(PROMPT)
    return typist


def test_commands(bash: Typist) -> None:
    bash.keys("echo one")
    bash.type("\r", until=PROMPT)
    bash.type("echo näïve 中文\r", until=PROMPT)
    bash.type("echo two", until="two")
    bash.type("\r", until=PROMPT)
    assert bash.input() == "echo one\recho näïve 中文\recho two\r"


def test_a_line_wider_than_the_terminal(bash: Typist) -> None:
    line = "echo " + "0123456789" * 30
    bash.type(line + "\r", until=PROMPT)
    assert bash.input() == line + "\r"


def test_corrections_and_completion(bash: Typist, tmp_path: Path) -> None:
    (tmp_path / "some_file").touch()
    bash.keys("ls sox")
    bash.type("\x7f", until="\b")
    bash.type("\t", until="me_file ")
    bash.keys("-l")
    bash.type("\r", until=PROMPT)
    assert bash.input() == "ls sox\x7f\t-l\r"


@pytest.mark.parametrize(("shell", "ask"), [("bash --norc", "read -s x"), ("dash", "stty -echo; read x; stty echo")])
def test_read_without_echo(shell: str, ask: str, start: Callable[..., Typist]) -> None:
    typist = start(*shell.split(), "-i")
    typist.wait(PROMPT)
    command = f"printf Secret:; {ask}; echo; echo got $x"
    typist.type(command + "\r", until="\nSecret:" if shell == "dash" else "\rSecret:")
    typist.wait_until_it_reads(echo=False)
    typist.type("hunter2\r", until="got hunter2")  # the program prints it, but that is no echo
    typist.wait(PROMPT)
    typist.type("echo end\r", until=PROMPT)
    assert typist.input() == f"{command}\r{WITHHELD}\recho end\r"


def test_keys_of_a_password_one_by_one(bash: Typist) -> None:
    bash.type("read -s x; echo; echo got $x\r", until="\n")
    bash.wait_until_it_reads(echo=False)
    for key in "hunter2":
        bash.told += bash._redactor.input(time.monotonic(), key)
        os.write(bash._master, key.encode())
    bash.type("\r", until="got hunter2")
    assert bash.input() == f"read -s x; echo; echo got $x\r{WITHHELD}\r"


def test_getpass(start: Callable[..., Typist]) -> None:
    program = "import getpass; print(len(getpass.getpass())); print(len(input('name: ')))"
    typist = start(sys.executable, "-c", program)
    typist.wait("Password: ")
    typist.type("hunter2\r", until="name: ")
    typist.type("alice\r", until="5\r\n")
    assert typist.input() == f"{WITHHELD}\ralice\r"


def test_lines_typed_ahead_are_told_or_masked_but_a_password_never(bash: Typist) -> None:
    bash.type("read -s x\nhunter2\necho end\n", until=PROMPT)
    assert "hunter" not in bash.input()
    assert bash.input().startswith("read -s x\n")


def test_cat_on_a_cooked_terminal(bash: Typist) -> None:
    bash.type("cat\r", until=LEFT)
    bash.wait_until_it_reads(echo=True)
    bash.type("words\r", until="words\r\nwords\r\n")
    bash.type("\x04", until=PROMPT)
    assert bash.input() == "cat\rwords\r\x04"
