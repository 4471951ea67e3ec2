"""One program run on a channel: resolve, authorise, record, exec, bridge, close."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import asdict, replace

from bastion.audit.events import Event
from bastion.audit.log import BoundLog
from bastion.containers.exec import Exec, ExecSpec, Unanswered, start
from bastion.containers.shell import command_argv, shell_argv
from bastion.errors import Reason, Refusal, Unavailable, printable
from bastion.model import Container, ContainerState, Decision, Identity, Stream, Terminal
from bastion.recording.recorder import Recorder, Summary
from bastion.session.bridge import Bridge
from bastion.session.client import Client, Request
from bastion.session.destination import allowed, decisions, none_fits, running
from bastion.session.inbox import Inbox
from bastion.session.observer import Observer
from bastion.session.outcome import Outcome, Status, ended, refused
from bastion.session.picker import listing, pick
from bastion.session.rooms import Rooms

_logger = logging.getLogger(__name__)

STOP_GRACE = 1.0  # seconds that a stopped container's last output and exit status may take
COUNT_LIMIT = 10.0  # seconds that counting what a program left behind may take
FAREWELL_LIMIT = 2.0  # seconds that writing the last sentence to the recording may take


class Session:
    """Made for one shell or exec request; `run()` tells its story from beginning to end and raises nothing.

    The channel calls `inbox.feed`, `resize`, `signal` and `client_gone`, from the first moment on.
    """

    def __init__(self, request: Request, client: Client, rooms: Rooms, log: BoundLog) -> None:
        self.id = secrets.token_hex(8)
        self.inbox = Inbox(client.pause_reading, client.resume_reading)
        self._request = request
        self._client = client
        self._rooms = rooms
        self._log = log.bind(session_id=self.id)
        self._terminal = request.terminal
        self._resized = asyncio.Event()
        self._cut: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent_signals: set[str] = set()
        self._output_closed = False
        self._starting: asyncio.Task[Exec] | None = None
        self._container: Container | None = None
        self._recorder: Recorder | None = None
        self._observer: Observer | None = None
        self._bridge: Bridge | None = None
        self.row_begun = False
        self._began = time.monotonic()

    def resize(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._resized.set()
        if self._bridge is not None:
            self._bridge.resize(terminal)

    def signal(self, name: str) -> None:
        if self._bridge is not None:
            self._sent_signals.add(name)
            self._bridge.signal(name)

    def output_closed(self) -> None:
        """The client takes no more output: the program's next will end it, as a closed pipe does."""
        self._output_closed = True
        if self._bridge is not None:
            self._bridge.output_closed()

    def client_drained(self) -> None:
        if self._bridge is not None:
            self._bridge.client_drained()

    def client_gone(self) -> None:
        self.cut(Outcome(Status.DISCONNECTED))

    def cut(self, outcome: Outcome) -> None:
        """End the session now, whatever it is doing; the first word stands."""
        if not self._cut.done():
            self._cut.set_result(outcome)

    async def kill(self, by: str, why: str) -> None:
        """End it because `by` says so, once the log has it. Unavailable where it has not; the session goes on."""
        await self._log.emit(Event.SESSION_KILLED, by=by, why=why)
        sentence = f"This session was ended by the administrators: {printable(why)}"
        self.cut(Outcome(Status.KILLED, reason=Reason.KILLED, sentence=sentence, log_text=f"by {by}: {why}"))

    async def recheck(self, identity: Identity) -> None:
        """End it where this, which is who its user is by now, may no longer enter; not where that can't be told."""
        self._request = replace(self._request, identity=identity)
        if self._container is None:
            return
        try:
            decided = await decisions(identity, [self._container], self._rooms)
        except Unavailable as outage:
            _logger.warning("session %s can not be checked again: %s", self.id, outage.log_text)
            return
        if not allowed(decided):
            address = self._container.address
            sentence, log_text = f"You may no longer enter {address}.", f"{identity.user} no longer owns {address}"
            self.cut(Outcome(Status.REVOKED, reason=Reason.NOT_OWNER, sentence=sentence, log_text=log_text))

    async def run(self) -> None:
        outcome = await self._until_over()
        try:
            await self._close(outcome)
        except Exception:
            _logger.exception("session %s could not be closed", self.id)

    async def _until_over(self) -> Outcome:
        story = asyncio.create_task(self._story())
        await asyncio.wait({story, self._cut}, return_when=asyncio.FIRST_COMPLETED)
        if not story.done():
            story.cancel()
            await asyncio.wait({story})
        if self._cut.done() and (story.cancelled() or story.exception() is not None):
            return self._cut.result()
        try:
            return story.result()
        except Refusal as refusal:
            return refused(refusal, started=self._starting is not None and self._bridge is not None)
        except ConnectionError:
            return Outcome(Status.DISCONNECTED)
        except Exception:
            _logger.exception("session %s failed", self.id)
            return Outcome(Status.FAILED, sentence="The bastion failed; this was logged.", log_text="internal error")

    async def _story(self) -> Outcome:
        container, decision = await self._resolve()
        self._container = container
        unsubscribe = self._rooms.directory.subscribe(container, self._container_changed)
        try:
            # The event of a new container does not tell what it has mounted, so the engine itself is asked.
            if (now := await self._rooms.directory.refresh(container)).protected:
                named = self._request.address or container.address
                raise none_fits(self._request.identity, named, [(now, decision)])
            recorder = await self._record(container, decision)
            program = await self._exec(container)
            assert self._observer is not None
            self._bridge = Bridge(self._client, self.inbox, program, recorder, self._observer, self._log_resize)
            if self._terminal is not None and self._resized.is_set():
                self._bridge.resize(self._terminal)
            if self._output_closed:
                self._bridge.output_closed()
            await self._bridge.run()
            code = await program.wait()
            if code == _KILLED and not self._sent_signals:
                # The container's death kills its programs first and is told a moment later.
                await asyncio.wait({self._stopped}, timeout=STOP_GRACE / 2)
            if self._stopped.done():
                return self._container_stopped()
            return ended(code, frozenset(self._sent_signals))
        except Refusal:
            if self._stopped.done():
                return self._container_stopped()
            raise
        finally:
            unsubscribe()

    async def _resolve(self) -> tuple[Container, Decision]:
        request, directory = self._request, self._rooms.directory
        candidates = directory.all() if request.address is None else directory.find(request.address)
        decided = await decisions(request.identity, candidates, self._rooms)
        fitting = allowed(decided)
        if not fitting:
            raise none_fits(request.identity, request.address, decided)
        ready = running(fitting, request.address)
        if len(ready) == 1 and request.address is not None:
            return ready[0]
        choices = [container for container, _ in ready]
        if self._terminal is None or request.command is not None:
            raise Refusal(Reason.AMBIGUOUS_ADDRESS, listing(choices), f"{len(choices)} containers fit")
        chosen = await pick(
            choices, self._current_terminal, self._resized, self.inbox, self._write_output, self._client.drain
        )
        if chosen is None:
            raise Refusal(Reason.AMBIGUOUS_ADDRESS, "Nothing was chosen.")
        # Choosing may have taken hours: what was true then is asked again.
        candidates = [container for container in directory.all() if container.id == chosen.id]
        decided = await decisions(request.identity, candidates, self._rooms)
        fitting = allowed(decided)
        if not fitting:
            raise none_fits(request.identity, chosen.address, decided)
        return running(fitting, chosen.address)[0]

    async def _record(self, container: Container, decision: Decision) -> Recorder:
        """Before anything runs: a row, an event, a file. What can't be recorded does not happen."""
        request = self._request
        self._log = self._log.bind(address=str(container.address), container_id=container.id, engine=container.engine)
        await self._rooms.rows.begin(
            session_id=self.id,
            connection_id=request.connection_id,
            user=request.identity.user,
            source_ip=request.source_ip,
            container=container,
            terminal=request.terminal is not None,
            command=request.command,
        )
        self.row_begun = True
        self._recorder = await self._rooms.recordings.open(
            self.id,
            user=request.identity.user,
            address=str(container.address),
            command=request.command,
            terminal=self._terminal,
        )
        await self._log.emit(
            Event.SESSION_START,
            kind="shell" if request.command is None else "exec",
            command=request.command,
            terminal=request.terminal is not None,
            rule=decision.rule,
            recording=str(self._recorder.path),
        )
        recorder = self._recorder
        self._observer = Observer(
            self._log, lambda: recorder.seconds, self._rooms.commands, self._terminal, request.command
        )
        return recorder

    async def _log_resize(self, terminal: Terminal) -> None:
        await self._log.emit(Event.SESSION_RESIZE, columns=terminal.columns, rows=terminal.rows)

    async def _exec(self, container: Container) -> Exec:
        request = self._request
        argv = shell_argv(container.labels) if request.command is None else command_argv(request.command)
        spec = ExecSpec(
            argv=argv,
            env=request.env,
            terminal=self._terminal,
            user=container.labels.get("bastion.user"),
            workdir=container.labels.get("bastion.workdir"),
            session_id=self.id,
        )
        self._resized.clear()
        self._starting = asyncio.create_task(start(self._rooms.engines[container.engine], container, spec))
        # Shielded: an exec that is being started when the client leaves must be known, to be ended.
        return await asyncio.shield(self._starting)

    def _container_changed(self, state: ContainerState) -> None:
        if state is ContainerState.STOPPED and not self._stopped.done():
            self._stopped.set_result(None)
            asyncio.get_running_loop().call_later(STOP_GRACE, lambda: self.cut(self._container_stopped()))

    def _container_stopped(self) -> Outcome:
        assert self._container is not None
        return Outcome(
            Status.STOPPED,
            reason=Reason.CONTAINER_NOT_RUNNING,
            sentence=f"The container {self._container.address} stopped.",
        )

    def _current_terminal(self) -> Terminal:
        assert self._terminal is not None
        return self._terminal

    def _write_output(self, data: bytes) -> None:
        self._client.write((Stream.OUTPUT, data))

    async def _close(self, outcome: Outcome) -> None:
        await self._say_farewell(outcome)
        left_behind = await self._end_program(outcome)
        how = outcome.exit_signal or (outcome.exit_status if outcome.clean else outcome.status.value)
        summary = await self._recorder.close(how) if self._recorder is not None else None
        if self._observer is not None:
            await self._observer.finish()
        if self.row_begun:
            await self._log_end(outcome, left_behind, summary)
        elif outcome.reason is not None:
            address = str(self._request.address) if self._request.address is not None else None
            await self._logged(
                self._log.emit(Event.ACCESS_DENIED, address=address, reason=outcome.reason, detail=outcome.log_text)
            )

    async def _say_farewell(self, outcome: Outcome) -> None:
        if outcome.sentence:
            text = _lines(outcome.sentence, terminal=self._request.terminal is not None)
            # With a terminal there is one stream, and some clients show extended data nowhere.
            stream = Stream.ERROR if self._request.terminal is None else Stream.OUTPUT
            chunk = (stream, text.encode())
            if self._recorder is not None and outcome.reason is not Reason.RECORDING_FAILED:
                with contextlib.suppress(Refusal, TimeoutError):
                    async with asyncio.timeout(FAREWELL_LIMIT):
                        await self._recorder.write([chunk])
            self._client.write(chunk)
        if outcome.exit_signal is not None:
            self._client.exit_signal(outcome.exit_signal)
        else:
            self._client.exit(outcome.exit_status)

    async def _end_program(self, outcome: Outcome) -> int | None:
        """Hang up what runs; after a clean end count what was left behind on purpose. None: not known."""
        if self._starting is None or self._container is None:
            return None
        await asyncio.wait({self._starting})
        engine, reaper = self._rooms.engines[self._container.engine], self._rooms.reaper
        failure = self._starting.exception()
        if failure is not None:
            if isinstance(failure, Unanswered):  # it may have been started all the same, or may be yet
                reaper.reap(engine, self._container, self.id, failure.is_over)
            return None
        program = self._starting.result()
        try:
            if outcome.clean:
                async with asyncio.timeout(COUNT_LIMIT):
                    return await program.left_behind()
            reaper.reap(engine, self._container, self.id, program.is_over)
        except (Refusal, TimeoutError):
            pass
        finally:
            await program.close()
        return None

    async def _log_end(self, outcome: Outcome, left_behind: int | None, summary: Summary | None) -> None:
        failure = summary.failure if summary is not None else None
        if failure is not None or outcome.reason is Reason.RECORDING_FAILED:  # or it could not even be begun
            detail = failure or outcome.log_text
            await self._logged(self._log.emit(Event.RECORDING_FAILED, reason=Reason.RECORDING_FAILED, detail=detail))
        await self._logged(
            self._log.emit(
                Event.SESSION_END,
                status=outcome.status,
                exit_status=outcome.exit_status,
                exit_signal=outcome.exit_signal,
                reason=outcome.reason,
                detail=outcome.log_text or None,
                seconds=round(time.monotonic() - self._began, 3),
                left_behind=left_behind,
                streams=summary.streams if summary is not None else None,
                recording=asdict(summary.end) if summary is not None and summary.end is not None else None,
            )
        )

    async def _logged(self, emitted: Awaitable[None]) -> None:
        """What is over can't be refused any more: the log's own failure goes to the operator."""
        try:
            await emitted
        except Refusal as refusal:
            _logger.error("session %s: %s", self.id, refusal.log_text)


_KILLED = 128 + 9


def _lines(sentence: str, *, terminal: bool) -> str:
    text = sentence.rstrip("\n") + "\n"
    return text.replace("\n", "\r\n") if terminal else text
