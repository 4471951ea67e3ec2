"""A real directory with people in it, and servers that misbehave."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.slapd import BASE, PEOPLE, Slapd, slapd


@pytest.fixture(scope="session")
def directory(servers_folder: Path) -> Iterator[Slapd]:
    """alice and bob; groups developers (alice), app-web (developers), circle-a and circle-b (alice, each other)."""
    folder = servers_folder / "slapd"
    folder.mkdir()
    with slapd(folder) as server:
        alice, bob = server.add_user("alice"), server.add_user("bob", password="bob's own")
        server.add_user("twin", rdn="cn=twin one")
        server.add_user("twin", rdn="cn=twin two")
        developers = server.add_group("developers", alice)
        server.add_group("app-web", developers)
        server.add_group("ops, eu", alice, rdn="cn=ops\\, eu")
        server.add_group("app-vault", bob)
        circle = server.add_group("circle-a", alice)
        server.add_member(circle, server.add_group("circle-b", circle))
        elsewhere = server.add(f"ou=elsewhere,{BASE}", ["organizationalUnit"], ou="elsewhere")
        server.add_group("self-made", alice, below=elsewhere)
        server.add(f"ou=people,{elsewhere}", ["organizationalUnit"], ou="people")
        assert alice == f"uid=alice,{PEOPLE}"
        yield server


@dataclass
class Misbehaving:
    """A TCP server that hands each connection to a function in a thread of its own."""

    port: int
    connections: int = 0
    threads: list[threading.Thread] = field(default_factory=list)


@pytest.fixture
def misbehaving() -> Iterator[Callable[[Callable[[socket.socket], None]], Misbehaving]]:
    """Starts one whose connections are served by a function; it should end when its socket is shut down."""
    with contextlib.ExitStack() as stack:

        def start(serve: Callable[[socket.socket], None]) -> Misbehaving:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = Misbehaving(listening.getsockname()[1])
            accepted: list[socket.socket] = []

            def handle(connection: socket.socket) -> None:
                with connection, contextlib.suppress(OSError):
                    serve(connection)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listening.accept()
                        server.connections += 1
                        accepted.append(connection)
                        thread = threading.Thread(target=handle, args=(connection,))
                        server.threads.append(thread)  # before it says anything
                        thread.start()

            def stop() -> None:
                listening.shutdown(socket.SHUT_RDWR)
                accepting.join(10)
                for connection in accepted:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                for thread in server.threads:
                    thread.join(10)

            accepting = threading.Thread(target=accept)
            accepting.start()
            stack.callback(stop)
            return server

        yield start
