"""Finding and ending what the demo started, when nothing but a mark in its environment is left to find it by."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from demo import processes
from tests.servers.process import wait_until

MARK = "bastion-demo-test-processes"


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A marked shell that ignores SIGTERM, with a child in a session of its own."""
    command = ["/bin/sh", "-c", "trap '' TERM; setsid sleep 1000 & echo ready; wait"]
    environment = processes.environment(MARK)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: processes.find(MARK, name="sleep"), "the child is there")
        yield process
        processes.end(MARK, signal.SIGKILL, 5)


def test_finds_children_by_the_mark_that_they_inherit(shell: subprocess.Popen[bytes]) -> None:
    assert shell.pid in processes.find(MARK)
    assert processes.find(MARK, name="sleep") == [pid for pid in processes.find(MARK) if pid != shell.pid]


@pytest.mark.parametrize("other", [MARK + "x", MARK[:-1], ""])
def test_a_mark_is_matched_whole(shell: subprocess.Popen[bytes], other: str) -> None:
    assert shell.pid not in processes.find(other)


def test_says_when_sigterm_was_not_enough_and_kills(shell: subprocess.Popen[bytes]) -> None:
    assert not processes.end(MARK, signal.SIGTERM, 0.3)
    assert processes.find(MARK)
    assert processes.end(MARK, signal.SIGKILL, 5)
    assert shell.wait(5) == -signal.SIGKILL
    assert processes.find(MARK) == []
