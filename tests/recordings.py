"""The recordings in a folder, whether they are compressed already or not."""

import contextlib
from pathlib import Path

from bastion.recording.files import CAST, newest, open_lines, session_of


def recordings(folder: Path) -> list[Path]:
    """The oldest first, by the name that each has while it grows."""
    found: dict[Path, float] = {}
    for path in folder.rglob("*.cast*"):
        with contextlib.suppress(FileNotFoundError):  # it has just been removed
            if path.suffix != ".part":
                found.setdefault(path.with_name(session_of(path) + CAST), newest(path))
    return sorted(found, key=lambda path: found[path])


def content(path: Path) -> bytes:
    """The lines of one."""
    with open_lines(path) as file:
        return file.read()
