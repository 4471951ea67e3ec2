import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.containers.shell import command_argv, interpreter, launch_argv, mark, shell_argv

LABEL = "bastion.shell"


def test_a_command_is_one_argument_whatever_it_holds() -> None:
    command = "echo '$x' \"`id`\"; exit 3 # \\"
    assert command_argv(command) == ("/bin/sh", "-c", command)


@pytest.mark.parametrize(("label", "argv"), [("/bin/zsh", ("/bin/zsh",)), (" fish --login ", ("fish", "--login"))])
def test_the_label_names_the_shell(label: str, argv: tuple[str, ...]) -> None:
    assert shell_argv({LABEL: label}) == argv


@pytest.mark.parametrize("label", ["", "  "])
def test_an_empty_label_is_none(label: str) -> None:
    assert shell_argv({LABEL: label}) == shell_argv({})
    assert shell_argv({})[0] == "/bin/sh"


@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("", "/bin/sh"),
        ("/busybox/sh", "/busybox/sh"),
        ("/opt/bin/bash -l", "/opt/bin/bash"),
        ("/usr/bin/fish", "/bin/sh"),
        ("bash", "/bin/sh"),
    ],
)
def test_our_scripts_run_in_the_labelled_shell_if_it_understands_them(label: str, path: str) -> None:
    assert interpreter({LABEL: label}) == path
    assert launch_argv(("x",), {LABEL: label}, "id")[0] == path


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.text())
def test_marks_are_18_digits_and_tell_sessions_apart(one: str, other: str) -> None:
    assert len(mark(one)) == 18
    assert mark(one).isdigit()
    assert 0 < int(mark(one)) < 2**63
    assert (mark(one) == mark(other)) == (one == other)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_launcher_hands_on_arguments_environment_and_exit_status(shell: str, tmp_path: Path) -> None:
    folder = tmp_path / shell
    folder.mkdir()
    sh = folder / "sh"  # busybox goes by the name that it is called by
    found = subprocess.run(["which", shell], capture_output=True, text=True, check=True).stdout.strip()
    sh.symlink_to(found)
    script = 'printf "<%s>" "$@"; env | sort; grep locks /proc/self/limits; exit 42'
    nasty = ("", "a b", "$(id)", "'\"\\", "*", "-n", "\n", "é\udcff")
    argv = launch_argv(("/bin/sh", "-c", script, "sh", *nasty), {LABEL: str(sh)}, "some-id")
    env = {"PATH": "/usr/bin:/bin", "A": "b"}
    done = subprocess.run(argv, check=False, capture_output=True, env=env, stdin=subprocess.DEVNULL)
    assert done.returncode == 42
    assert done.stderr == b""
    arguments = "".join(f"<{argument}>" for argument in nasty).encode("utf-8", "surrogateescape")
    assert done.stdout.startswith(arguments)
    assert mark("some-id").encode() in done.stdout.split(b"Max file locks")[1]
    assert b"bastion" not in done.stdout


def test_what_can_not_be_marked_is_not_started() -> None:
    argv = launch_argv(("echo", "started"), {}, "id")
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "sh", "-c", 'ulimit -w 5; exec "$@"', "sh", *argv],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 126
    assert done.stdout == b""
    assert b"file locks" in done.stderr
