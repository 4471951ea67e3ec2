"""Between the bastion and the real engine: holds the start of an exec back, as an engine that gets stuck there would.

An engine that is stopped (SIGSTOP) can not be made to stop in exactly that moment.
"""

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.engine import Engine

_START = re.compile(rb"POST (?:/v[\d.]+)?/exec/(\w+)/start ")


@dataclass
class Holding:
    """The first start after `armed` is held until `release`; each comes on a connection of its own (attach.py)."""

    url: str
    armed: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    exec_id: str = ""  # of the one that is held


@contextlib.contextmanager
def holding(folder: Path, engine: Engine) -> Iterator[Holding]:
    path = folder / "held.sock"
    held = Holding(f"unix://{path}")

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as real:
                real.connect(engine.url.removeprefix("unix://"))
                first = self.request.recv(65536)
                asked = _START.match(first)
                if held.armed.is_set() and not held.reached.is_set() and asked is not None:
                    held.exec_id = asked[1].decode()
                    held.reached.set()
                    assert held.release.wait(60)
                real.sendall(first)
                pump = threading.Thread(target=_pump, args=(self.request, real))
                pump.start()
                _pump(real, self.request)
                pump.join()

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Connection) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield held
        held.release.set()
        server.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until `source` has said all, or nobody listens; `target` is then told that there is no more."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
