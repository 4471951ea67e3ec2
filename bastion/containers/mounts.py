"""What no container that is entered may have mounted: the folders of the bastion's trail, and an engine's socket. Pure
but for symbolic links, which are followed.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Whoever can talk to the engine is root on its machine, and unseen: it undoes whatever else is protected.
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock")

Mount = Mapping[str, Any]  # of `Mounts` in ContainerList and ContainerInspect


@dataclass(frozen=True)
class Guarded:
    """Paths on the engine's machine, and names of volumes."""

    paths: frozenset[str]
    volumes: frozenset[str] = frozenset()

    def mounted(self, mounts: Iterable[Mount]) -> bool:
        """Does one of the mounts hold a guarded path, or lie in one, or is it a guarded volume?"""
        return any(
            mount.get("Name") in self.volumes
            or any(_overlap(source, path) for source in _forms(mount.get("Source") or "") for path in self.paths)
            for mount in mounts
        )


def guarded(url: str, folders: Iterable[Path], own: Iterable[Mount] | None) -> Guarded:
    """What is guarded on the engine at `url`; `own` are the mounts of the container that the bastion runs in there.

    Then the folders are on the machine where these mounts say. Without such a container they are there by their own
    names, if the engine is on this machine.
    """
    address = urlsplit(url)
    paths, volumes = set(SOCKETS), set()
    here = [str(folder) for folder in folders]
    if address.scheme == "unix":
        here.append(address.path)
    if own is not None:
        for mount in own:
            if mount["Type"] == "volume":
                volumes.add(str(mount["Name"]))
            paths |= {_outside(mount, path) for path in here if _overlap(mount["Destination"], path)} - {""}
    elif address.scheme == "unix" or address.hostname in {"127.0.0.1", "::1", "localhost"}:
        paths |= set(here)
    return Guarded(frozenset(form for path in paths for form in _forms(path)), frozenset(volumes))


def _outside(mount: Mount, path: str) -> str:
    """Where `path`, or what of it the mount holds, is on the machine; empty where the engine does not say."""
    source, destination = mount.get("Source") or "", mount["Destination"]
    if not source or not _holds(destination, path):
        return str(source)
    return os.path.normpath(os.path.join(source, os.path.relpath(path, destination)))  # noqa: PTH118 - of another machine


def _forms(path: str) -> set[str]:
    """As it is written, and where it leads: /var/run is a link to /run."""
    return {os.path.normpath(path), os.path.realpath(path)} if path else set()


def _overlap(one: str, other: str) -> bool:
    return _holds(one, other) or _holds(other, one)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
