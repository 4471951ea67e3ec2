"""A container that may do what a machine may: boot a systemd, or run an engine of its own."""

from pathlib import Path

from docker.models.containers import Container

from tests.servers.engine import Engine

_SYS_RESOURCE = 24  # capabilities(7); not every virtual machine has it, and so none that is started on it

# cgroup v2 and nothing else, whatever this machine has: systemd and a new Docker would rather not have v1.
_BEGIN = "umount -R /sys/fs/cgroup && mount -o remount,bind,rw /sys && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "


def start_machine(engine: Engine, image: str, command: str, **kwargs: object) -> Container:
    """`command` as process 1 of a container of `image`; what it started ends when the container is removed."""
    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    lacks_it = not int(mine.split()[1], 16) >> _SYS_RESOURCE & 1
    return engine.run(
        image,
        command=["/bin/sh", "-c", _BEGIN + command],
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"] if lacks_it else [],
        cgroupns="private",
        device_cgroup_rules=["a *:* rwm"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        **kwargs,
    )
