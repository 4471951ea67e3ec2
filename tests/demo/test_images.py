"""Trees for images, of what this machine has."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from demo import images


def names(tree: bytes) -> list[str]:
    return tarfile.open(fileobj=io.BytesIO(tree)).getnames()


def test_no_path_is_there_twice_where_busybox_is_linked_dynamically(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The busybox is a stand-in: Debian has the dynamic one and the static one, and a machine has either."""
    busybox = tmp_path / "busybox"
    shutil.copy("/usr/bin/env", busybox)  # a dynamic program, with libraries that bash has too
    found = images._program
    monkeypatch.setattr(images, "_program", lambda name: busybox if name == "busybox" else found(name))
    listed = names(images.busybox_tar(("sh",), bash=True))
    assert sorted(listed) == sorted(set(listed))
    assert any(name.endswith("libc.so.6") for name in listed)


def test_bash_and_the_terminals_are_in_it_where_they_are_asked_for() -> None:
    assert {"bin/bash", "bin/busybox", "lib/terminfo/x/xterm"} <= set(names(images.busybox_tar(bash=True)))
    assert "bin/bash" not in names(images.busybox_tar())
