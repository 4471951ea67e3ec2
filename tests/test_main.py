"""`python -m tests`: what fails once is named and forgiven, what fails twice fails the run."""

import os
import subprocess
import sys
from pathlib import Path

from tests.pages import ROOT

STEADY = "def test_steady(): pass\n"
# each run appends to a file, so that a test knows how often it has run
UNSTEADY = """
import os, pathlib, pytest
def times(name):
    file = pathlib.Path(__file__).with_name(name)
    file.write_text((file.read_text() if file.exists() else "") + "x")
    return len(file.read_text())
"""
ONCE = UNSTEADY + "def test_once(): assert times('once') > 1\n"
ONCE_ALONE = UNSTEADY + (
    "@pytest.mark.alone\ndef test_once_alone():\n"
    "    assert 'PYTEST_XDIST_WORKER' not in os.environ\n    assert times('alone') > 1\n"
)
ALWAYS = "def test_always(): assert False\n"
TEARDOWN = """
import pytest
@pytest.fixture
def broken():
    yield
    assert False
def test_teardown(broken): pass
"""
SKIPPED = "import pytest\ndef test_skipped(): pytest.skip('not here')\n"


def run(folder: Path, **files: str) -> tuple[int, list[str]]:
    """Exit status and lines of a run of these tests."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone: one at a time\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "tests", str(folder)]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }  # of this run's worker
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout.splitlines()


def test_what_passes_the_second_time_is_forgiven_but_named_and_nothing_else(tmp_path: Path) -> None:
    wrong = {"always": ALWAYS, "teardown": TEARDOWN, "skipped": SKIPPED}
    status, said = run(tmp_path, steady=STEADY, once=ONCE, alone=ONCE_ALONE, **wrong)
    assert (status, said[-1]) == (1, "3 passed, 3 failed")
    assert "!!!! FAILED AT FIRST, AND PASSED WHEN RUN AGAIN; to be mended all the same:" in said
    named = [line for line in said if line.startswith(("!!!!     ", "    test_"))]
    assert named == [
        "!!!!     test_alone::test_once_alone",
        "!!!!     test_once::test_once",
        "    test_always::test_always",
        "    test_skipped::test_skipped",
        "    test_teardown::test_teardown",
    ]
    for file in wrong:
        (tmp_path / f"test_{file}.py").unlink()
    status, said = run(tmp_path)
    assert (status, said[-1]) == (0, "3 passed, 0 failed")
    assert not any("once more" in line for line in said)


def test_a_file_that_can_not_be_read_fails_the_run(tmp_path: Path) -> None:
    status, said = run(tmp_path, steady=STEADY, broken="import no_such_module\n")
    assert status == 1
    assert "pytest ended with status" in said[-1]
