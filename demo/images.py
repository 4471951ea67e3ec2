"""Images that need no registry: a tree of files, packed with tar, handed to `docker import` (ImageCreate fromSrc=-)."""

import io
import subprocess
import tarfile
from pathlib import Path

from docker import DockerClient

BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static


def import_tree(client: DockerClient, tree: bytes | Path, tag: str) -> str:
    """Import a root file system (the bytes of a tar, or the path of one) as image `tag`; returns the tag."""
    repository, _, version = tag.partition(":")
    if isinstance(tree, Path):
        client.api.import_image_from_file(str(tree), repository=repository, tag=version or "latest")
    else:
        client.api.import_image_from_data(tree, repository=repository, tag=version or "latest")
    return tag


def busybox_tar(applets: tuple[str, ...] = ()) -> bytes:
    """A root file system with busybox under the names of `applets` (none: all that it has, so with a shell)."""
    if not BUSYBOX.exists():
        raise FileNotFoundError(f"{BUSYBOX} is missing: apt-get install busybox-static")
    return _tar(applets or _all_applets())


def _all_applets() -> tuple[str, ...]:
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    return tuple(name for name in listed.stdout.split() if name != "busybox")


def _tar(applets: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "home"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox", filter=_as_root)
        for name in applets:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(link)
        for path, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n"),
            ("etc/group", "root:x:0:\napp:x:1000:\n"),
        ):
            data = text.encode()
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755
    return info
