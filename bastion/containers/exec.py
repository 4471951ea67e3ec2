"""A program run in a container: created, started, resized, signalled, waited for."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import docker

from bastion.containers import processes
from bastion.containers.attach import Attach, attach
from bastion.containers.engine import Engine
from bastion.containers.shell import interpreter, launch_argv
from bastion.errors import Reason, Refusal, Unavailable
from bastion.model import Chunk, Container, Stream, Terminal

_logger = logging.getLogger(__name__)

QUEUE_LIMIT = 30.0  # seconds that a start may wait for its turn
START_SECONDS = 0.25  # after which a silent program is taken to have started, and the next has its turn
POLL_FIRST, POLL_LAST = 0.005, 2.0  # seconds between questions for the exit status
DOUBT_SECONDS = 10.0  # "running", says the engine, after the end of the output: ask the container itself
STALL_FIRST, STALL_LAST = 1.0, 10.0  # seconds between looks at a program whose output nobody takes
STALL_ANSWER = 2.0  # seconds for the engine's answer then
REST = 4 << 20  # bytes; what was between a program that has ended and its client: 1.2 MB, measured
RESIZE_LIMIT = 15.0  # seconds; the engine itself waits 10 for the start
MAX_SIZE = 0xFFFF  # columns or rows: unsigned short in struct winsize

# Off is not on offer: "" means the default, ctrl-p,ctrl-q, and the engine holds the first key back until the next one
# comes. ctrl-@ (NUL) sets the mark in emacs and readline, which shows only with the next key; ctrl-] jumps in vim.
DETACH_KEYS = "ctrl-@,ctrl-],ctrl-@,ctrl-^,ctrl-@,ctrl-_,ctrl-@,ctrl-]"

# RFC 4254 section 6.9
SIGNALS = {"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"}

# How the engine, and runc or crun behind it, begin the sentence that a start has failed, in place of the output.
_ENGINE_WORDS = (b"OCI runtime", b"unable to find ", b"exec failed", b"Error: ", b"crun: ", b"runc ", b"cannot exec ")
_MAX_ENGINE_WORDS = 4096  # bytes


@dataclass(frozen=True)
class ExecSpec:
    """What to run. `user` and `workdir` are None for the image's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    terminal: Terminal | None
    user: str | None
    workdir: str | None
    session_id: str


class Unanswered(Unavailable):
    """The engine has not said whether the program was started. It may still do it: `is_over` says when it has run."""

    def __init__(self, outage: Unavailable, engine: Engine, exec_id: str) -> None:
        super().__init__(outage.reason, outage.user_text, outage.log_text)
        self._engine, self._exec_id = engine, exec_id

    async def is_over(self) -> bool:
        state = await self._engine.call(lambda client: client.exec_inspect(self._exec_id))
        return not state["Running"] and state["ExitCode"] is not None


class Exec:
    """A started program; read and written by one task each."""

    def __init__(self, engine: Engine, container: Container, spec: ExecSpec, exec_id: str, attached: Attach) -> None:
        self.id = exec_id
        self.engine = engine
        self.container = container
        self.session_id = spec.session_id
        self._tty = spec.terminal is not None
        self._attach = attached
        self._first_read = True
        self._why_not: Refusal | None = None  # it could not be started
        self._holds_start = True
        self._size = self._applied = (0, 0)
        self._resizing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        attached.on_stall = self._on_stall
        loop = asyncio.get_running_loop()
        self._start_timer = loop.call_later(START_SECONDS, self._has_started)
        if spec.terminal is not None:
            self._start_timer.cancel()  # the resize returns when it has started
            self._request_size(*_initial(spec.terminal))

    async def read(self) -> list[Chunk]:
        """What the program has said, [] at the end (see Attach.read).

        Raises Refusal where it could not be started: NO_SHELL, or ENGINE_ERROR for a user or folder that there is not.
        """
        chunks = await self._attach.read()
        if self._first_read:
            self._first_read = False
            self._has_started()
            if self._may_be_the_engines(chunks):
                await self._check_started(b"".join(data for _, data in chunks))
        return chunks

    def take(self) -> list[Chunk] | None:
        """What it has said since, once `read` has given its first words; None if that is nothing, [] at the end."""
        return self._attach.take()

    def on_output(self, call: Callable[[], None]) -> None:
        """From now on it is called when there is something to `take`, and nobody may `read`."""
        self._attach.on_output = call

    def on_drained(self, call: Callable[[], None]) -> None:
        """From now on it is called when the program is no longer `full`."""
        self._attach.on_drained = call

    def write(self, data: bytes) -> None:
        """Dropped where the program reads no more: its output and status may still come."""
        self._attach.write(data)

    @property
    def full(self) -> bool:
        """Does the engine, or the program, take no more at the moment?"""
        return self._attach.full

    def write_eof(self) -> None:
        """The client will send no more. A terminal stays open, as with sshd (the engine would close its output too)."""
        if not self._tty:
            self._attach.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        """The terminal has a new size. Returns at once; of several that come meanwhile the newest wins."""
        if self._tty:
            self._request_size(columns, rows)

    async def wait(self) -> int:
        """The exit status, after `read` has come to the end: 128 + n for a program that signal n has ended.

        Raises Refusal where there is none: the start failed, the container or the engine is gone.
        """
        delay, waited = POLL_FIRST, 0.0
        while (state := await self._inspect())["Running"]:
            if waited >= DOUBT_SECONDS:
                waited = 0.0
                if await processes.count(self.engine, self.container, self.session_id) == 0:
                    log = f"exec {self.id[:12]} is running, says the engine, but has no process"
                    raise Refusal(Reason.ENGINE_ERROR, "The program's exit status is not known.", log)
            await asyncio.sleep(delay)
            waited += delay
            delay = min(delay * 2, POLL_LAST)
        if self._why_not is not None:
            raise self._why_not
        if self._never_ran(state, b""):
            raise self._not_started("no output")
        return int(state["ExitCode"])

    async def signal(self, name: str) -> None:
        """Send a signal of RFC 4254 section 6.9 to the program's process group, as sshd does; others are ignored."""
        if name not in SIGNALS:
            return
        try:
            await processes.signal_group(self.engine, self.container, self.session_id, name)
        except Refusal as refusal:  # no reason to end the session
            _logger.warning("session %s: SIG%s was not sent: %s", self.session_id, name, refusal.log_text)

    async def left_behind(self) -> int:
        """How many processes of the session live on. Raises Refusal where that can not be found out."""
        return await processes.count(self.engine, self.container, self.session_id)

    async def is_over(self) -> bool:
        """Has the program ended, or could it not be started? Not so before it has begun."""
        try:
            return not (await self._inspect())["Running"]
        except Refusal as refusal:
            if refusal.reason is Reason.NO_SUCH_CONTAINER:  # the engine has forgotten it
                return True
            raise

    async def close(self) -> None:
        """Let go of the streams; what runs goes on running (see processes.Reaper)."""
        self._attach.abort()
        self._has_started()
        for task in (self._resizing, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    def _has_started(self) -> None:
        """Give the engine's next start its turn; once."""
        if self._holds_start:
            self._holds_start = False
            self._start_timer.cancel()
            self.engine.starts.release()

    async def _inspect(self, timeout: float | None = None) -> dict[str, Any]:
        inspect = partial(docker.APIClient.exec_inspect, exec_id=self.id)
        state: dict[str, Any] = await self.engine.call(inspect, timeout=timeout)
        return state

    def _may_be_the_engines(self, chunks: list[Chunk]) -> bool:
        streams = {stream for stream, _ in chunks}
        if streams != {Stream.OUTPUT} and not (streams == {Stream.ERROR} and self.engine.is_podman):
            return False
        words = b"".join(data for _, data in chunks)
        return len(words) <= _MAX_ENGINE_WORDS and (self._attach.at_eof or words.startswith(_ENGINE_WORDS))

    async def _check_started(self, output: bytes) -> None:
        """Raise where `output` is the engine's."""
        try:
            state = await self._inspect()
        except Refusal:
            return  # wait() will say so, after the output
        if self._never_ran(state, output):
            self._why_not = self._not_started(output.decode("utf-8", "backslashreplace").strip())
            raise self._why_not

    def _never_ran(self, state: Mapping[str, Any], output: bytes) -> bool:
        """A program that has run has had a pid, whatever it prints. Podman forgets pids: there it is what it says."""
        if state["Running"] or state["Pid"]:
            return False
        said_so = output.startswith(b"Error: ") and b"OCI runtime" in output and state["ExitCode"] in (126, 127)
        return said_so or not self.engine.is_podman

    def _not_started(self, words: str) -> Refusal:
        log = f"engine {self.engine.name!r}, container {self.container.name}: not started: {words}"
        if "cannot exec in a " in words:  # paused or stopped in the middle of the start
            return self.engine.refusal(409, words)
        shell = interpreter(self.container.labels)
        if f'"{shell}"' in words or f"`{shell}`" in words:  # runc and crun name what they could not run
            return Refusal(Reason.NO_SHELL, f"The container has no shell ({shell}).", log)
        return Refusal(Reason.ENGINE_ERROR, "The program could not be started in the container.", log)

    def _request_size(self, columns: int, rows: int) -> None:
        # RFC 4254 section 6.2: zero dimensions are to be ignored
        self._size = (min(columns, MAX_SIZE) or self._size[0], min(rows, MAX_SIZE) or self._size[1])
        if self._resizing is None or self._resizing.done():
            self._resizing = asyncio.create_task(self._resize())

    async def _resize(self) -> None:
        try:
            while self._applied != self._size:
                size = self._size
                resize = partial(docker.APIClient.exec_resize, exec_id=self.id, height=size[1], width=size[0])
                await self.engine.call(resize, timeout=RESIZE_LIMIT)
                self._applied = size
        except Refusal as refusal:  # it has ended, or could not be started: reading says so
            _logger.debug("exec %s: not resized: %s", self.id[:12], refusal.log_text)
        finally:
            self._has_started()

    def _on_stall(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch_stall())

    async def _watch_stall(self) -> None:
        """Take what a program left that has ended while nobody read.

        Until then the engine tells the end of no other exec of this container: one stuck client held up all.
        """
        delay = STALL_FIRST
        reads = self._attach.reads
        while True:
            await asyncio.sleep(delay)
            if not self._attach.stalled or self._attach.reads != reads:
                return
            try:
                if not await self._is_alive():
                    self._attach.allow(REST)
                    return
            except Refusal as refusal:
                _logger.debug("exec %s: %s", self.id[:12], refusal.log_text)
            delay = min(delay * 2, STALL_LAST)

    async def _is_alive(self) -> bool:
        """Of an exec with unread output that has ended, inspect says "running" (Docker 20.10) or nothing (26)."""
        try:
            state = await self._inspect(STALL_ANSWER)
        except Unavailable:
            await self.engine.call(docker.APIClient.ping, timeout=STALL_ANSWER)  # it is not the engine that is away
            return False
        if not state["Running"]:
            return False
        top = await self.engine.call(lambda client: client.top(self.container.id, ps_args="-eo pid"))
        return [str(state["Pid"])] in [row[:1] for row in top["Processes"]]


async def start(engine: Engine, container: Container, spec: ExecSpec) -> Exec:
    """Create and start. Raises Refusal or Unavailable; a program that can not be run is told by `Exec.read`."""
    env = dict(spec.env) | {"BASTION_SESSION": spec.session_id}
    if spec.terminal is not None:
        env["TERM"] = spec.terminal.term
    argv = launch_argv(spec.argv, container.labels, spec.session_id)
    columns, rows = (0, 0) if spec.terminal is None else _initial(spec.terminal)
    try:
        async with asyncio.timeout(QUEUE_LIMIT):
            await engine.starts.acquire()
    except TimeoutError as error:
        raise engine.unavailable(f"engine {engine.name!r}: no turn to start within {QUEUE_LIMIT:g} s") from error
    try:
        created = await engine.call(
            lambda client: client.exec_create(
                container.id,
                list(argv),
                stdin=True,
                tty=spec.terminal is not None,
                environment=env,
                user=spec.user or "",
                workdir=spec.workdir,
                detach_keys=DETACH_KEYS,
            )
        )
        try:
            attached = await attach(
                engine,
                created["Id"],
                tty=spec.terminal is not None,
                timeout=engine.section.timeout,
                console_size=(rows, columns) if columns else None,
            )
        except Unavailable as outage:
            raise Unanswered(outage, engine, created["Id"]) from outage
    except BaseException:
        engine.starts.release()
        raise
    return Exec(engine, container, spec, created["Id"], attached)


def _initial(terminal: Terminal) -> tuple[int, int]:
    """Columns and rows; what the client left out as 80x24."""
    return min(terminal.columns, MAX_SIZE) or 80, min(terminal.rows, MAX_SIZE) or 24
