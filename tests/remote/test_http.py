import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bastion.config import Remote
from bastion.errors import ConfigError
from bastion.remote.breaker import FAILURES
from bastion.remote.http import MAX_BYTES, Answer, JsonClient, RemoteError
from tests.servers.http import HttpServer, http_server
from tests.servers.oidc import Provider
from tests.servers.process import free_port


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[JsonClient]:
    made = JsonClient(Remote(), "auth.oidc")
    yield made
    await made.close()


async def why(client: JsonClient, url: str) -> str:
    with pytest.raises(RemoteError) as caught:
        await client.get(url, {"Authorization": "Bearer hunter2"})
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


async def test_what_is_asked_and_what_is_answered(server: HttpServer, client: JsonClient) -> None:
    server.routes["/a"] = lambda request: request.json({"sub": "alice"})
    server.routes["/no"] = lambda request: request.json({"message": "no"}, 401)
    server.routes["/text"] = lambda request: request.raw(b"<p>no", 403)
    assert await client.get(f"{server.url}/a", {"Authorization": "Bearer t"}) == Answer(200, {"sub": "alice"})
    assert await client.post(f"{server.url}/no", {"token": "a&b=c"}) == Answer(401, {"message": "no"})
    assert await client.get(f"{server.url}/text") == Answer(403, {})
    assert server.asked[0][2]["Authorization"] == "Bearer t"
    assert server.asked[1][3] == {"token": "a&b=c"}


async def test_a_redirect_is_not_followed(server: HttpServer, client: JsonClient) -> None:
    with http_server({"/": lambda request: request.json({})}) as other:
        server.routes["/"] = lambda request: request.raw(b"", 302, Location=f"{other.url}/")
        assert "HTTP 302" in await why(client, f"{server.url}/")
        assert other.asked == []


async def test_what_is_no_answer(server: HttpServer, client: JsonClient) -> None:
    server.routes |= {
        "/list": lambda request: request.json([1]),
        "/nan": lambda request: request.raw(b'{"exp": NaN}'),
        "/deep": lambda request: request.raw(b"[" * MAX_BYTES),
        "/latin": lambda request: request.raw(b'{"a": "\xff"}'),
        "/empty": lambda request: request.raw(b""),
    }
    for path in list(server.routes):
        assert "no JSON object" in await why(client, f"{server.url}{path}")
        server.routes["/well"] = lambda request: request.json({})
        await client.get(f"{server.url}/well")
    server.routes["/"] = lambda request: request.raw(gzip.compress(b" " * 50_000_000), Content_Encoding="gzip")
    assert "gzip" in await why(client, f"{server.url}/")
    server.routes["/"] = lambda request: request.json({}, 503)
    assert "HTTP 503" in await why(client, f"{server.url}/")


async def test_an_answer_of_50_mb_is_not_read(server: HttpServer, client: JsonClient) -> None:
    sent = 0

    def flood(request) -> None:  # type: ignore[no-untyped-def]
        nonlocal sent
        request.send_response(200)
        request.send_header("Content-Length", str(50 * MAX_BYTES))
        request.end_headers()
        for _ in range(50):
            request.wfile.write(b" " * MAX_BYTES)
            sent += 1

    server.routes["/"] = flood
    assert "more than 1 MiB" in await why(client, f"{server.url}/")
    assert sent < 50


async def test_all_of_it_within_the_time(server: HttpServer) -> None:
    """Also where a byte comes now and then, so that no single read takes long."""

    def drip(request) -> None:  # type: ignore[no-untyped-def]
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        while not request.server.owner.stopping.wait(0.1):
            request.wfile.write(b" ")

    client = JsonClient(Remote(timeout=0.7), "auth.oidc")
    for path, serve in (("/drip", drip), ("/stall", lambda request: request.stall())):
        server.routes[path] = serve
        start = time.monotonic()
        assert "within 0.7 s" in await why(client, f"{server.url}{path}")
        assert time.monotonic() - start < 10
    await client.close()


async def test_a_server_that_fails_is_left_alone(server: HttpServer, client: JsonClient) -> None:
    server.routes["/"] = lambda request: request.json({}, 500)
    for _ in range(2 * FAILURES):  # not for what it says at once
        assert "HTTP 500" in await why(client, f"{server.url}/")
    server.routes["/"] = lambda request: request.connection.shutdown(socket.SHUT_RDWR)
    for _ in range(FAILURES):
        assert "not asked" not in await why(client, f"{server.url}/")
    asked = len(server.asked)
    assert "not asked" in await why(client, f"{server.url}/")
    assert len(server.asked) == asked
    with http_server({"/": lambda request: request.json({})}) as other:
        assert (await client.get(f"{other.url}/")).status == 200  # each for itself


async def test_where_a_token_is_not_sent(client: JsonClient) -> None:
    for url in (
        "http://sso.example.org/",
        "ftp://127.0.0.1/",
        "https://",
        "//127.0.0.1",
        "https://a\0b/",
        "https://é/",
    ):
        assert "is right" in await why(client, url)
    assert "is right" in await why(client, "https://user:password@sso.example.org/")


async def test_nobody_there(client: JsonClient) -> None:
    assert "Cannot connect" in await why(client, f"http://127.0.0.1:{free_port()}/")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.listen(0)
        silent = JsonClient(Remote(timeout=0.5), "auth.oidc")
        assert "within 0.5 s" in await why(silent, f"https://127.0.0.1:{listening.getsockname()[1]}/")
        await silent.close()


async def test_a_certificate_that_nobody_trusts(client: JsonClient, provider: Provider, tmp_path: Path) -> None:
    assert "certificate verify failed" in await why(client, f"{provider.issuer}/jwks")
    trusting = JsonClient(Remote(ca_file=provider.ca_file), "auth.oidc")
    assert (await trusting.get(f"{provider.issuer}/jwks")).status == 200
    assert "mismatch" in await why(trusting, f"https://localhost:{provider.port}/jwks")
    await trusting.close()
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigError, match=r"auth\.oidc\.ca_file: .*ca.pem holds no certificates"):
        JsonClient(Remote(ca_file=tmp_path / "ca.pem"), "auth.oidc")


async def test_a_proxy_sees_names_only(server: HttpServer, client: JsonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "inside.example.org")
    await why(client, "https://sso.example.org/api/me")
    (request,) = asked
    assert request.startswith(b"CONNECT sso.example.org:443 HTTP/1.1\r\n")
    assert b"hunter2" not in request
    server.routes["/"] = lambda request: request.json({})
    assert (await client.get(f"{server.url}/")).status == 200  # http:// within this machine goes past it
    await why(client, "https://inside.example.org:1/")  # no such name
    assert len(asked) == 1
    listening.close()
    await listening.wait_closed()
