"""The files of recordings: SESSION_ID.cast while it grows, SESSION_ID.cast.zst once it has ended."""

import contextlib
import io
import os
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import zstandard

CAST, COMPRESSED = ".cast", ".cast.zst"
PART = COMPRESSED + ".part"  # of a compression that is under way, or that a crash cut short
LEVEL = 3  # of zstd
CHUNK = 1 << 20  # bytes


def session_of(path: Path) -> str:
    """The id of the session whose recording that is."""
    return path.name.partition(".")[0]


def open_lines(path: Path) -> BinaryIO:
    """The lines of a recording, as they were written; one that is compressed meanwhile is found. OSError.

    Reading raises zstandard.ZstdError where a compressed one is damaged.
    """
    plain, compressed = (path.with_name(session_of(path) + suffix) for suffix in (CAST, COMPRESSED))
    with contextlib.suppress(FileNotFoundError):
        return plain.open("rb")
    file = compressed.open("rb")
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=False, closefd=True)
    return io.BufferedReader(reader, CHUNK)


def compress(path: Path) -> None:
    """Replace SESSION_ID.cast by SESSION_ID.cast.zst, unless that is done; one is always whole. OSError."""
    if not path.exists():
        return
    target = path.with_name(session_of(path) + COMPRESSED)
    part = path.with_name(session_of(path) + PART)
    try:
        with path.open("rb") as plain, os.fdopen(_create(part), "wb") as packed:
            compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
            compressor.copy_stream(plain, packed, size=os.fstat(plain.fileno()).st_size, read_size=CHUNK)
            packed.flush()
            was = os.fstat(plain.fileno())
            os.utime(packed.fileno(), ns=(was.st_atime_ns, was.st_mtime_ns))
            os.fsync(packed.fileno())
        part.rename(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    path.unlink()


def newest(path: Path) -> float:
    """When it was last written to, in Unix time. OSError."""
    try:
        return path.with_name(session_of(path) + CAST).stat().st_mtime
    except FileNotFoundError:
        return path.with_name(session_of(path) + COMPRESSED).stat().st_mtime


def remove(path: Path) -> None:
    """A recording, for good, and its folders where they are empty then. OSError."""
    for suffix in (CAST, COMPRESSED, PART):
        path.with_name(session_of(path) + suffix).unlink(missing_ok=True)
    sync_folder(path.parent)
    with contextlib.suppress(OSError):  # others are in it
        for folder in islice(path.parents, 3):  # DD, MM, YYYY
            folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Brings the names in it to the disk. OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    path.unlink(missing_ok=True)  # a crash left it
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
