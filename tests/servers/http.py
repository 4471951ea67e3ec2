"""A small HTTP server whose answers are functions of the test: for what no real server can be brought to say."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


class Request(BaseHTTPRequestHandler):
    """What was asked, and the means to answer it."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        self.server.owner.asked.append((self.command, self.path, dict(self.headers), self.form))
        with contextlib.suppress(OSError):  # the client has had enough
            answer = self.server.owner.routes.get(self.path)
            answer(self) if answer is not None else self.json({}, 404)

    def json(self, body: object, status: int = 200) -> None:
        self.raw(json.dumps(body).encode(), status)

    def raw(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def stall(self, seconds: float = 60) -> None:
        """Say nothing for so long, or until the server is stopped."""
        self.server.owner.stopping.wait(seconds)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@dataclass
class HttpServer:
    """`routes` by path, changed as the test goes on; `asked` is what came: method, path, headers, form."""

    port: int
    routes: dict[str, Callable[[Request], None]]
    asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.asked]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: HttpServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients hang up here


@contextlib.contextmanager
def http_server(routes: dict[str, Callable[[Request], None]] | None = None) -> Iterator[HttpServer]:
    """Serves on a free port of 127.0.0.1 in a thread."""
    server = _Server(("127.0.0.1", 0), Request)
    server.owner = HttpServer(server.server_address[1], dict(routes or {}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.owner
    finally:
        server.owner.stopping.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
