"""Images that need no registry: a tree of files, packed with tar, handed to `docker import` (ImageCreate fromSrc=-)."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from docker import DockerClient

BASHRC = "PS1='\\u@\\h:\\w\\$ '\nalias ls='ls --color=auto'\n"
ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n",
    "etc/group": "root:x:0:\napp:x:1000:\n",
}
TERMINFO = (Path("/lib/terminfo"), Path("/usr/share/terminfo"))
TERMINALS = ("x/xterm", "x/xterm-256color", "s/screen", "s/screen-256color", "t/tmux-256color", "l/linux", "v/vt100")


def import_tree(client: DockerClient, tree: bytes | Path, tag: str) -> str:
    """Import a root file system (the bytes of a tar, or the path of one) as image `tag`; returns the tag."""
    # The tag as part of the repository: Podman 4 does not know the parameter of that name.
    if isinstance(tree, Path):
        client.api.import_image_from_file(str(tree), repository=tag)
    else:
        client.api.import_image_from_data(tree, repository=tag)
    return tag


def busybox_tar(applets: tuple[str, ...] = (), *, bash: bool = False) -> bytes:
    """A root file system with busybox under the names of `applets` (none: all that it has, so with a shell).

    `bash` adds this machine's bash. Raises FileNotFoundError where this machine lacks either.
    """
    busybox = _program("busybox")
    programs = [busybox, _program("bash")] if bash else [busybox]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "home"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        _add_programs(tar, programs)
        for name in applets or _all_applets(busybox):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(link)
        for path, text in ETC.items():
            _add_text(tar, path, text)
        if bash:
            _add_text(tar, "etc/bash.bashrc", BASHRC)  # where Debian's bash looks
            for entry in TERMINALS:
                if found := next((folder / entry for folder in TERMINFO if (folder / entry).exists()), None):
                    tar.add(found.resolve(), f"lib/terminfo/{entry}", filter=_as_root)
    return buffer.getvalue()


def _program(name: str) -> Path:
    found = shutil.which(name, path="/bin:/usr/bin:/usr/sbin")
    if found is None:
        raise FileNotFoundError(f"{name} is missing: apt-get install {'busybox-static' if name == 'busybox' else name}")
    return Path(found)


def _all_applets(busybox: Path) -> tuple[str, ...]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return tuple(name for name in listed.stdout.split() if name != "busybox")


def _add_programs(tar: tarfile.TarFile, programs: Sequence[Path]) -> None:
    """Each as /bin/NAME, and the shared libraries of all where their loader looks for them (none, if static).

    Docker refuses an archive that has a path twice, and Debian's busybox is not always the static one.
    """
    libraries: set[str] = set()
    for program in programs:
        tar.add(program.resolve(), f"bin/{program.name}", filter=_as_root)
        # Lines like: libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f..), and one for the loader, with its path only.
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries |= {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
    for library in sorted(libraries):
        tar.add(Path(library).resolve(), library.lstrip("/"), filter=_as_root)


def _add_text(tar: tarfile.TarFile, path: str, text: str) -> None:
    data = text.encode()
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755
    return info
