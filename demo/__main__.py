"""`python -m demo up` serves until ctrl-C and then removes all that it made; `down` does so after a crash, too."""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bastion.config import Engine
from demo import containers, engine, server
from demo.dockerd import Dockerd
from demo.terminal import Problem, complain, say, step

TREE = Path(__file__).resolve().parents[1]
RUN = TREE / "demo/run"
KEYS = TREE / "keys"
ENGINE = RUN / "engine.json"  # the engine that the containers are in
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Ctrl-C, a terminal that was closed, or `make demo-down` in another one."""


def up() -> None:
    """Serve until a signal or the bastion's own end."""
    with _lock() as alone:
        if not alone:
            raise Problem("The demo is already running; make demo-down ends it.")
        for signum in ENDING:
            signal.signal(signum, _stop)
        try:
            _remove_everything()
            _serve()
        except Stopped:
            say()
        finally:
            _ignore_signals()
            _remove_everything()


def down() -> None:
    """End a demo that runs, and remove what one that crashed has left."""
    deadline = time.monotonic() + 60
    told = False
    while True:
        with _lock() as alone:
            if alone:
                _remove_everything()
                return
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            if not told:
                os.kill(int((RUN / "pid").read_text()), signal.SIGTERM)
                told = True
        if time.monotonic() > deadline:
            raise Problem(f"The demo does not end; kill -9 {(RUN / 'pid').read_text()} and try again.")
        time.sleep(0.05)


def _serve() -> None:
    RUN.mkdir(mode=0o700)
    (RUN / "pid").write_text(str(os.getpid()))
    port = server.port_of(os.environ)
    if shutil.which("busybox", path="/bin:/usr/bin") is None:
        engine.install("busybox-static")
    own = Dockerd(RUN)
    section, silent = engine.find(os.environ)
    section = section or engine.start(own, silent)
    ENGINE.write_text(section.model_dump_json())
    say(f"Docker engine: {section.url}")
    config = server.configure(RUN, KEYS, port, section)
    KEYS.mkdir(exist_ok=True)
    known = server.passwords(KEYS / "demo-passwords.yaml")
    preparing = server.prepare(config, known)  # takes as long as the containers do
    client = engine.connect(section)
    containers.start(client, RUN)
    client.close()
    fingerprints = server.prepared(preparing)
    bastion = server.serve(config, port)
    _tell(port, known, fingerprints)
    status = bastion.wait()
    raise Problem(f"The bastion ended by itself, with status {status}:\n{server.last_words(RUN / 'bastion.log')}")


def _tell(port: int, known: dict[str, str], fingerprints: str) -> None:
    # The first is Ed25519's, which ssh asks about.
    fingerprint = next((word for word in fingerprints.split() if word.startswith("SHA256:")), "")
    run = RUN.relative_to(TREE)
    say(
        f"""
The bastion serves on {server.HOST}:{port}.

    ssh -p {port} alice+web.worker.1@{server.HOST}
    password: {known["alice"]}

alice owns web.worker.1, web.worker.2 and shop.front.1. bob's is vault.db.1; password: {known["bob"]}

    host key       {fingerprint}
    recordings     {run}/recordings
    audit log      {run}/audit.jsonl
    configuration  {run}/config.yaml

Ctrl-C, or make demo-down, ends it and removes all this; keys/ and .venv/ stay."""
    )


def _remove_everything() -> None:
    """Whatever is there of this demo: bastion, containers, engine, folder. Quick where there is nothing."""
    if not RUN.exists():
        return
    if os.geteuid() not in (0, RUN.stat().st_uid):
        raise Problem("Another user started the demo that is here: sudo make demo-down")
    with step("Removing what the demo made"):
        server.stop(RUN)
        own = Dockerd(RUN)
        try:
            _remove_containers()
        finally:
            engine.stop(own)
        shutil.rmtree(RUN)


def _remove_containers() -> None:
    if not ENGINE.exists():
        return
    section = Engine.model_validate_json(ENGINE.read_text())
    try:
        client = engine.connect(section)
        containers.remove(client, RUN)
        client.close()
    except Problem as problem:
        # What is in the demo's own engine ends with it.
        if section.url != Dockerd(RUN).url:
            raise Problem(
                f"The demo's containers are still in {section.url} ({problem}); make demo-down when it answers."
            ) from problem


@contextlib.contextmanager
def _lock() -> Iterator[bool]:
    """Held while a demo runs, and let go of by the kernel whatever becomes of it; did we get it?"""
    folder = os.open(TREE / "demo", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(folder)


def _stop(_signum: int, _frame: FrameType | None) -> None:
    _ignore_signals()  # an impatient second ctrl-C would leave half of it behind
    raise Stopped


def _ignore_signals() -> None:
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)


def main() -> int:
    os.chdir(TREE)
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except (Problem, OSError) as problem:
        complain(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
