"""Resolve and authorise: from what the user asked for to the one container that they may enter."""

from collections.abc import Iterable

from bastion import config
from bastion.access.address import names_exactly
from bastion.access.ownership import decide
from bastion.containers.directory import Directory
from bastion.errors import Reason, Refusal
from bastion.model import Address, Container, ContainerState, Decision, Identity
from bastion.session.rooms import Rooms

Decided = list[tuple[Container, Decision]]


async def decisions(identity: Identity, candidates: Iterable[Container], rooms: Rooms) -> Decided:
    """May this identity enter each of `candidates`? LAIN's console is asked about what nothing else allows.

    Raises Unavailable where it can not be told.
    """
    candidates = list(candidates)
    access, apps = rooms.access, rooms.directory.apps
    decided = [(container, decide(identity, container, access, apps)) for container in candidates]
    if rooms.console is None:
        return decided
    left = [one for one, decision in decided if not (decision.allowed or decision.lacks_second_factor or one.protected)]
    roles = await rooms.console.owned(identity, {container.address.app for container in left})
    return [(container, decide(identity, container, access, apps, roles)) for container in candidates]


def allowed(decided: Decided) -> Decided:
    return [(container, decision) for container, decision in decided if decision.allowed]


def owned_apps(identity: Identity, directory: Directory, access: config.Access) -> set[str]:
    """The apps of which this identity may enter every container: one of several owners is not the app's.

    Raises Unavailable where it can not be told.
    """
    containers = [container for container in directory.all() if not container.protected]
    apps = {container.address.app for container in containers}
    return apps - {one.address.app for one in containers if not decide(identity, one, access, directory.apps).allowed}


def none_fits(identity: Identity, address: Address | None, decided: Decided) -> Refusal:
    """The user reads the same words for a container that does not exist and one that they do not own."""
    if lacking := [container for container, decision in decided if decision.lacks_second_factor]:
        what = f"The container {lacking[0].address}" if len(lacking) == 1 else f"Each of the {len(lacking)} containers"
        text = f"{what} can be entered only by who has signed in with a second factor (a code): sign in anew."
        log_text = f"{identity.user} has given no second factor for {lacking[0].address}"
        return Refusal(Reason.SECOND_FACTOR_NEEDED, text, log_text)
    if address is None:
        text = "There is no container here that you may enter."
    else:
        text = f"There is no container {address} that you may enter."
    candidates = [container for container, _ in decided]
    if not candidates:
        return Refusal(Reason.NO_SUCH_CONTAINER, text, f"no container fits {address}")
    names = ", ".join(str(container.address) for container in candidates[:5])
    if all(container.protected for container in candidates):
        return Refusal(Reason.PROTECTED_CONTAINER, text, f"{names}: the bastion's own, never entered")
    return Refusal(Reason.NOT_OWNER, text, f"{identity.user} does not own {names}")


def running(fitting: Decided, address: Address | None) -> Decided:
    """Those that can be entered now; a Refusal says why where there is none.

    One that the address names to the letter is meant, whatever else fits.
    """
    if address is not None:
        fitting = [pair for pair in fitting if names_exactly(address, pair[0].address)] or fitting
    ready = [(container, decision) for container, decision in fitting if container.state is ContainerState.RUNNING]
    if ready:
        return ready
    which = "Each container that you may enter" if address is None else f"The container {address}"
    if any(container.state is ContainerState.PAUSED for container, _ in fitting):
        raise Refusal(Reason.CONTAINER_PAUSED, f"{which} is paused; try again when it runs.")
    raise Refusal(Reason.CONTAINER_NOT_RUNNING, f"{which} is not running.")
