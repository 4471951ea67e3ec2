"""What a container's labels say: its address, and whether it is the bastion's own. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bastion.model import INSTANCE, NAME, Address

DEFAULT_PROC = "main"
DEFAULT_INSTANCE = "1"
PROTECTED_LABEL = "bastion.protected"

_COMPOSE = "com.docker.compose."
_SWARM = "com.docker.swarm."
_LAIN = "cc.bdp.lain.deployd."
# deployd names a container {app}.{type}.{proc}.v{version}-i{instance}-d{drift}[-c{index}] (its engine/pod.go)
_LAIN_NAME = re.compile(r"(?P<pod_group>.+)\.v[0-9]+-i(?P<instance>[0-9]+)-d[0-9]+(?:-c[0-9]+)?")
_SHORT_ID = 12  # characters of an id that `docker ps` shows, and the least that stand for it
_ID = re.compile(r"[0-9a-f]{64}")


def address_of(labels: Mapping[str, str], name: str, cluster: str | None) -> Address | None:
    """The complete address of the container `name`, from the first that fits; None where nothing does.

    `bastion.app` is enough of the bastion's own labels: a missing `bastion.proc` or `bastion.instance` (which a
    Compose file can not set for each replica) is the platform's, else `main` and 1. The platform is the first that
    fits of Compose, Swarm, LAIN. A malformed value makes its whole source unfit.
    """
    platform = _compose(labels) or _swarm(labels) or _lain(labels, name)
    address = _bastion(labels, platform) or platform
    return address and replace(address, cluster=cluster)


def is_protected(container_id: str, name: str, labels: Mapping[str, str], protected: Iterable[str]) -> bool:
    """Is it never entered? By its label (all but `false` protects), its name, or 12 digits or more of its id."""
    if labels.get(PROTECTED_LABEL, "false").lower() != "false":
        return True
    return any(one == name or (len(one) >= _SHORT_ID and container_id.startswith(one)) for one in protected)


def own_ids(hostname: str, mountinfo: str) -> tuple[str, ...]:
    """Ids (or their first 12 digits) of the container that this process may run in.

    `mountinfo` is /proc/self/mountinfo (proc_pid_mountinfo(5)): Docker and Podman mount the container's
    /etc/hostname and its like from a folder that has the id in its path. The host name is the short id unless it
    was set; on a machine outside of any container it fits nothing.
    """
    ids: set[str] = set()
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] in {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}:
            ids.update(part for part in fields[3].split("/") if _ID.fullmatch(part))
    if re.fullmatch(r"[0-9a-f]{12,64}", hostname):
        ids.add(hostname)
    return tuple(sorted(ids))


def _address(app: str | None, proc: str | None, instance: str | None) -> Address | None:
    if app is None or proc is None or instance is None:
        return None
    if not (NAME.fullmatch(app) and NAME.fullmatch(proc) and INSTANCE.fullmatch(instance)):
        return None
    return Address(app, proc, int(instance))


def _bastion(labels: Mapping[str, str], platform: Address | None) -> Address | None:
    proc, instance = DEFAULT_PROC, DEFAULT_INSTANCE
    if platform is not None:
        proc, instance = platform.proc or proc, str(platform.instance)
    return _address(
        labels.get("bastion.app"), labels.get("bastion.proc", proc), labels.get("bastion.instance", instance)
    )


def _compose(labels: Mapping[str, str]) -> Address | None:
    # `compose run` starts another container beside the service's, with the same number: it is no instance.
    if labels.get(_COMPOSE + "oneoff", "False").lower() != "false":
        return None
    return _address(*(labels.get(_COMPOSE + part) for part in ("project", "service", "container-number")))


def _swarm(labels: Mapping[str, str]) -> Address | None:
    """A service of a stack is a process of the app that the stack is; any other service is an app."""
    service, task, task_id = (labels.get(_SWARM + part) for part in ("service.name", "task.name", "task.id"))
    if not service or not task or not task_id:
        return None
    # A task is named service.slot.id; a global service has one on each node, and its node's id for a slot.
    if not (task.startswith(f"{service}.") and task.endswith(f".{task_id}")):
        return None
    slot = task[len(service) + 1 : -len(task_id) - 1]
    if slot == labels.get(_SWARM + "node.id"):
        slot = DEFAULT_INSTANCE
    stack = labels.get("com.docker.stack.namespace")
    if stack is None:
        return _address(service, DEFAULT_PROC, slot)
    if not service.startswith(f"{stack}_"):
        return None
    return _address(stack, service.removeprefix(f"{stack}_"), slot)


def _lain(labels: Mapping[str, str], name: str) -> Address | None:
    """An app's own labels replace deployd's, which could claim another app; the container's name is deployd's alone."""
    match = _LAIN_NAME.fullmatch(name)
    if match is None or match["pod_group"] != labels.get(_LAIN + "pg_name"):
        return None
    if match["instance"] != labels.get(_LAIN + "instance_no"):
        return None
    app, *rest = match["pod_group"].rsplit(".", 2)
    # A portal runs in its client's namespace: whose it is can not be said.
    if len(rest) != 2 or app != labels.get(_LAIN + "pg_namespace"):
        return None
    return _address(app, rest[1], match["instance"])
