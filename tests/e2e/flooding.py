"""Sessions that flood both ways while the bastion is killed, again and again; and what is then in the recordings."""

import contextlib
import itertools
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bastion.model import Stream
from bastion.recording.asciicast import Reader
from bastion.recording.chain import End
from bastion.recording.files import COMPRESSED, open_lines
from bastion.recording.integrity import Verdict, verify
from tests.servers.bastion import Bastion, serving
from tests.servers.engine import Engine
from tests.servers.process import free_port, wait_until

ROUNDS, ROUNDS_IN_A_TEST = 100, 3
SESSIONS = 20
STEP = 256 << 10  # bytes of NUMBERS from where one stream begins to where the next one does
NUMBERS = b"".join(b"%08d\n" % number for number in range((40 << 20) // 9))  # each stream is under recording.max_bytes
LOGIN = "alice+flood.main.1"


@dataclass
class Found:
    """What a number of kills have left, all in all."""

    rounds: int = 0
    sessions: int = 0
    to_clients: int = 0  # bytes
    to_containers: int = 0  # bytes
    missing: int = 0  # bytes of these that are not in the recordings
    lost: int = 0  # sessions that the next start has closed as lost
    verified: int = 0  # recordings whose chain is whole, up to the end that the audit log remembers


class Flood:
    """The sessions of one round: what each client received and what each container stored is in a file of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._clients: list[subprocess.Popen[bytes]] = []

    def received(self, session: int) -> Path:
        return self._folder / f"{self._number}-{session}.received"

    def stored(self, session: int) -> Path:
        return self._folder / f"{self._number}-{session}.stored"

    def command(self, session: int) -> str:
        into = f"/flood/{self.stored(session).name}"
        return f"tail -c +{session * STEP + 1} /flood/numbers & exec cat > {into}"

    def begin(self, bastion: Bastion) -> None:
        """Returns when every session floods both ways, all at once."""
        for session in range(SESSIONS):
            with (self._folder / "numbers").open("rb") as numbers, self.received(session).open("wb") as received:
                numbers.seek((SESSIONS + session) * STEP)
                client = bastion.ssh_command(LOGIN, self.command(session))
                self._clients.append(
                    subprocess.Popen(client, stdin=numbers, stdout=received, stderr=subprocess.DEVNULL)
                )
        waiting = dict(enumerate(self._clients))

        def all_wait() -> bool:
            """Who is ready waits for the others: what passes meanwhile would only fill the disk."""
            for session in list(waiting):
                if all(
                    file.exists() and file.stat().st_size for file in (self.received(session), self.stored(session))
                ):
                    waiting.pop(session).send_signal(signal.SIGSTOP)
            return not waiting

        wait_until(all_wait, "all flood", 60)
        for client in self._clients:
            client.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """To be called after the kill: every client says that its connection has gone."""
        for client in self._clients:
            assert client.wait(30) == 255

    def stop(self) -> None:
        for client in self._clients:
            client.kill()
            client.wait(5)

    def check(self, bastion: Bastion, found: Found) -> None:
        """The start after the kill has closed these sessions; what was received is held against the recordings."""
        paths = {path.stem: path for path in bastion.recordings()}
        wait_until(lambda: paths.keys() <= ends(bastion).keys(), "the next start closes what was open", 60)
        wait_until(lambda: not any(path.exists() for path in paths.values()), "and compresses its recordings", 60)
        sessions = {self.command(session): session for session in range(SESSIONS)}
        for session_id, path in paths.items():
            command, of = read(path)
            session = sessions.pop(command)
            shown, stored = self.received(session), self.stored(session)
            streams = (
                (shown.read_bytes(), of[Stream.OUTPUT], session),
                (stored.read_bytes(), of[Stream.INPUT], SESSIONS + session),
            )
            for received, recorded, begins in streams:
                found.missing += missing(received, recorded)
                assert NUMBERS.startswith(recorded, begins * STEP), (command, len(recorded))
            found.to_clients += len(streams[0][0])
            found.to_containers += len(streams[1][0])
            end = End(**ends(bastion)[session_id]["recording"])  # type: ignore[arg-type]
            found.verified += verify(path, end) == Verdict(end, ended=False, finding=None)
            found.lost += 1
            for file in (shown, stored, path.with_name(session_id + COMPRESSED)):
                file.unlink()
        assert not sessions, "a session without a recording"
        found.rounds += 1
        found.sessions += SESSIONS


def ends(bastion: Bastion) -> dict[object, dict[str, object]]:
    return {event["session_id"]: event for event in bastion.events("session.end", status="lost")}


def read(path: Path) -> tuple[str | None, dict[Stream, bytes]]:
    """The command of a recording, and its streams."""
    streams: dict[Stream, bytearray] = {stream: bytearray() for stream in Stream}
    with open_lines(path) as lines:
        reader = Reader(lines)
        for event in reader:
            if event.stream is not None:
                streams[event.stream] += event.data
    return reader.header.command, {stream: bytes(data) for stream, data in streams.items()}


def missing(received: bytes, recorded: bytes) -> int:
    """How many bytes of what was received are not in the recording; from the first that differs on, all."""
    if recorded.startswith(received):
        return 0
    pairs = zip(received, recorded, strict=False)
    return len(received) - sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@contextlib.contextmanager
def flooding(flood: Flood, bastion: Bastion) -> Iterator[None]:
    try:
        flood.begin(bastion)
        yield
    finally:
        flood.stop()


def kill_again_and_again(folder: Path, engine: Engine, rounds: int) -> Found:
    """`folder` may have a bastion's keys and users; it keeps its log and its database from one start to the next."""
    # Not below the bastion's own folder: whoever has that mounted is not entered.
    with tempfile.TemporaryDirectory(prefix="bf-") as shared:
        return _kill_again_and_again(folder, Path(shared), engine, rounds)


def _kill_again_and_again(folder: Path, shared: Path, engine: Engine, rounds: int) -> Found:
    (shared / "numbers").write_bytes(NUMBERS)
    container = engine.app("flood", "main", 1, volumes={str(shared): {"bind": "/flood", "mode": "rw"}})
    found, last, port = Found(), None, free_port()
    limits = {"max_startups": {"start": 2 * SESSIONS, "full": 3 * SESSIONS}}  # all sign in at once
    for number in range(rounds + 1):
        with serving(folder, engine.url, port, ssh=limits) as bastion:
            if last is not None:
                last.check(bastion, found)
            if number == rounds:  # and the last start of all goes on, too
                wait_until(lambda: len(engine.processes(container)) == 1, "what the crashes left is swept")
                assert bastion.ssh(LOGIN, "echo goes on").stdout == b"goes on\n"
                break
            last = Flood(shared, number)
            with flooding(last, bastion):
                time.sleep(random.uniform(0, 0.5))  # the moment itself is what is tried
                bastion.kill()
                last.end()
    container.remove(force=True)
    return found
