"""The processes of sessions inside containers: counted, signalled, and ended whatever happens.

An engine has no call to kill an exec, and closing its attach ends nothing. So a second exec, as root, runs a script of
shell builtins (processes.sh) that finds what carries the session's mark (see shell.launch_argv).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources

from bastion.containers.attach import Attach, attach
from bastion.containers.engine import Engine
from bastion.containers.shell import interpreter, mark
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Container

_logger = logging.getLogger(__name__)

SCRIPT = resources.files(__package__).joinpath("processes.sh").read_text()
SCRIPT_LIMIT = 30.0  # seconds that one run may take; a paused container stops it in the middle
MAX_ANSWER = 4096  # bytes
RETRY_FIRST, RETRY_LAST = 0.25, 10.0  # seconds between tries
TRIES = 20  # that fail although the engine answers and the container runs

# As root, nothing of the image's environment may choose what is run.
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox",
    "ENV": "",
    "BASH_ENV": "",
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "",
}
IsOver = Callable[[], Awaitable[bool]]
_GONE = {Reason.NO_SUCH_CONTAINER, Reason.CONTAINER_NOT_RUNNING}


async def count(engine: Engine, container: Container, session_id: str) -> int:
    """How many processes of the session live. Raises Refusal, as all functions here do where the engine says no."""
    return await _run(engine, container, lambda: [session_id], "count")


async def signal_group(engine: Engine, container: Container, session_id: str, name: str) -> None:
    """Send a signal (RFC 4254 section 6.9: without SIG) to the process group of the session's first process."""
    await _run(engine, container, lambda: [session_id], "signal", name)


class Reaper:
    """Ends the processes of sessions, and owns the tasks that do it until nothing is left or the container is gone.

    A container that is paused and an engine that does not answer are waited for.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[tuple[str, str], dict[str, IsOver | None]] = {}  # engine, container: session ids

    def reap(self, engine: Engine, container: Container, session_id: str, is_over: IsOver | None = None) -> None:
        """Hang up what the session has started, and kill what lives two seconds later. Returns at once.

        `is_over` says of an exec without processes whether it has run already, or is yet to begin.
        """
        self._pending.setdefault((engine.name, container.id), {})[session_id] = is_over
        task = asyncio.create_task(self._reap(engine, container), name=f"reap {session_id} in {container.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Return when nothing is left to be ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, grace: float) -> None:
        """Let what is under way finish within `grace` seconds, then give it up."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        for task in late:
            _logger.error("given up: %s", task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _reap(self, engine: Engine, container: Container) -> None:
        """All sessions of the container that wait when this task has its turn, in one run of the script."""
        key = engine.name, container.id
        mine: dict[str, IsOver | None] = {}

        def take() -> Iterable[str]:
            mine.update(self._pending.pop(key, {}))
            return mine

        delay, tries = RETRY_FIRST, 0
        while True:
            try:
                left = await _run(engine, container, take, "hang-up")
                if left == 0:
                    for session_id, is_over in list(mine.items()):
                        if is_over is None or await is_over():
                            del mine[session_id]
                if not mine:
                    return
                problem, tries = f"{left} processes left", tries + 1
            except Refusal as refusal:
                if refusal.reason in _GONE:
                    return
                problem = refusal.log_text
                waits = isinstance(refusal, Unavailable) or refusal.reason is Reason.CONTAINER_PAUSED
                tries += not waits
            if tries >= TRIES:
                _logger.error("container %s: not ended: %s: %s", container.name, ", ".join(mine), problem)
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)


async def _run(
    engine: Engine, container: Container, sessions: Callable[[], Iterable[str]], action: str, signal: str = "-"
) -> int:
    """Run the script on the `sessions` that there are when it has its turn (none: not at all); how many are left."""
    attached: Attach | None = None
    try:
        async with asyncio.timeout(SCRIPT_LIMIT):
            async with engine.kills:
                if not (marks := [mark(session_id) for session_id in sessions()]):
                    return 0
                argv = [interpreter(container.labels), "-c", SCRIPT, "bastion", action, signal, *marks]
                created = await engine.call(
                    lambda client: client.exec_create(
                        container.id, argv, user="0", workdir="/", environment=_ENVIRONMENT, stdin=False
                    )
                )
                attached = await attach(engine, created["Id"], tty=False, timeout=engine.section.timeout)
                answer = await _read_until(attached, b"found ", b"")
            # What is waited for after the first signal costs the engine nothing.
            answer = await _read_until(attached, b"left ", answer)
    except TimeoutError as error:
        raise engine.unavailable(f"{container.name}: the script for {action} took too long") from error
    finally:
        if attached is not None:
            attached.abort()
    number = answer.rpartition(b"left ")[2].strip()
    if not number.isdigit():
        log = f"{container.name}: the script for {action} failed: {answer!r}"
        raise Refusal(Reason.ENGINE_ERROR, "The container engine could not do this.", log)
    return int(number)


async def _read_until(attached: Attach, word: bytes, answer: bytes) -> bytes:
    """`answer` and what follows, up to the line that begins with `word`, or to the end."""
    while not (word in answer and answer.endswith(b"\n")):
        chunks = await attached.read()
        if not chunks or len(answer) > MAX_ANSWER:
            break
        answer += b"".join(data for _, data in chunks)
    return answer
