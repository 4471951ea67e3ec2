"""Single sign-on in front of stock clients: tokens of a real OpenID provider in the password's place."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.e2e import clients
from tests.e2e.conftest import Start, another
from tests.e2e.terminal import on_terminal
from tests.e2e.test_logins import UNAVAILABLE, by_password, password_command
from tests.servers.bastion import PASSWORD, Bastion, serving
from tests.servers.engine import Engine
from tests.servers.http import http_server
from tests.servers.oidc import AUDIENCE, CLIENT, SCOPE, SECRET, Provider, new_key
from tests.servers.process import wait_until

WEB = "alice+web.busy.1"


@pytest.fixture(scope="session")
def sso(servers_folder: Path, bastion: Bastion, engine: Engine, provider: Provider) -> Iterator[Bastion]:
    """Signs in by tokens, and by the users file; app-web is a group in alice's token."""
    folder = servers_folder / "sso"
    folder.mkdir()
    (folder / "secret").write_text(f"{SECRET}\n")
    oidc = {
        "issuer": provider.issuer,
        "ca_file": str(provider.ca_file),
        "audience": [AUDIENCE, CLIENT],
        "client_id": CLIENT,
        "client_secret": "file:secret",
        "opaque_tokens": "introspection",
    }
    engine.app("sso", "front", 1, owners="@app-web")
    auth = {"oidc": oidc, "local": {"file": "users.yaml"}, "disconnect_expired": True}
    with serving(folder, engine.url, auth=auth) as started:
        yield started


def test_a_token_opens_its_owners_door_and_no_other(sso: Bastion, provider: Provider) -> None:
    token = provider.tokens("alice", resource=AUDIENCE)["access_token"]
    assert by_password(sso, "alice+sso.front.1", token, "echo in").stdout == b"in\n"
    login = sso.wait_for_event("user.login", user="alice", method="oidc-token")
    assert login["groups"] == ["app-web", "developers"]
    assert by_password(sso, "bob+sso.front.1", token, "echo in").returncode == 255
    sso.wait_for_event("user.login_failed", user="bob", reason="another_user")
    opaque = provider.tokens("bob")["access_token"]
    assert by_password(sso, "bob+sso.front.1", f"token:{opaque}", "echo in").returncode == 1  # bob is not in app-web
    sso.wait_for_event("user.login", user="bob", method="oidc-introspection")
    for path in sso.folder.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
        assert not path.is_file() or opaque.encode() not in path.read_bytes()


def test_a_session_ends_with_the_token_that_opened_it(sso: Bastion, provider: Provider) -> None:
    token = provider.signed(exp=int(time.time()) + 12)
    done = by_password(sso, WEB, token, "echo in; exec sleep 1000")
    assert done.stdout == b"in\n"
    assert b"What you signed in with has expired: sign in anew." in done.stderr
    assert done.returncode == 255
    sso.wait_for_event("session.end", user="alice", status="revoked", reason="credential_expired")


@pytest.mark.parametrize("client", ["openssh", "plink", "dbclient", "asyncssh", "ssh2"])
def test_a_token_from_each_client(
    sso: Bastion, provider: Provider, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setattr(clients, "PASSWORD", provider.signed())
    done = clients.CLIENTS[client](sso, WEB, "echo in", password=True, terminal=False).run()
    assert done.stdout == b"in\n", done.stderr


def test_a_token_from_ssh_askpass(sso: Bastion, provider: Provider, tmp_path: Path) -> None:
    script = tmp_path / "askpass"
    script.write_text('#!/bin/sh\nprintf %s "$TOKEN"\n')
    script.chmod(0o755)
    env = {**os.environ, "SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force", "TOKEN": provider.signed()}
    command = password_command(sso, WEB, "echo in")
    done = subprocess.run(command, env=env, capture_output=True, timeout=30, check=False)
    assert done.stdout == b"in\n", done.stderr


def test_bad_tokens_and_then_a_good_one(sso: Bastion, provider: Provider) -> None:
    now = int(time.time())
    for token, reason, told in (
        (provider.signed(exp=now - 60), "token_expired", b"the token has expired: get a new one"),
        (provider.signed(nbf=now + 60), "token_not_yet_valid", b"the token is not valid yet"),
        (provider.signed(aud="elsewhere"), "wrong_audience", b"the token is for another service"),
        (provider.signed()[:-4] + "AAAA", "bad_signature", b""),
        (provider.signed(more="x" * 1000), "malformed_token", b"cut short"),  # OpenSSH reads 1023 characters
        ("token:a\x1b[2Jb", "malformed_token", b"the token is malformed"),
    ):
        done = by_password(sso, WEB, token, "echo in", verbose=True)
        assert b"Permission denied (publickey,password)." in done.stderr
        assert told in done.stderr
        event = sso.wait_for_event("user.login_failed", user="alice", reason=reason)
        assert event["method"] == "password"
    assert by_password(sso, WEB, provider.signed(), "echo in").stdout == b"in\n"


@pytest.mark.parametrize("token", ["token:" + "t" * 1_000_000, "token:a\0b"], ids=["1 MB", "NUL"])
async def test_a_token_that_stock_clients_would_not_send(sso: Bastion, provider: Provider, token: str) -> None:
    options: dict[str, Any] = {"username": "alice", "client_keys": None, "agent_path": None, "known_hosts": None}
    with pytest.raises((asyncssh.DisconnectError, OSError)):
        await asyncssh.connect("127.0.0.1", sso.port, password=token, **options)
    async with asyncssh.connect("127.0.0.1", sso.port, password=provider.signed(), **options):
        pass


def test_an_outage_is_not_a_wrong_token(folder: Path, engine: Engine, provider: Provider) -> None:
    """Nobody is kept out who has another way in."""
    with contextlib.ExitStack() as stack:
        oidc = {"issuer": "https://127.0.0.1:1", "audience": [AUDIENCE], "timeout": 2}
        bastion = stack.enter_context(serving(folder, engine.url, auth={"oidc": oidc, "local": {"file": "users.yaml"}}))
        wrong = replace(provider, port=1).signed(iss="https://127.0.0.1:1")
        done = by_password(bastion, WEB, wrong, "true", verbose=True)
        assert UNAVAILABLE in done.stderr
        assert done.returncode == 255
        event = bastion.wait_for_event("user.login_failed", user="alice", reason="sso_unavailable")
        assert "https://127.0.0.1:1" in event["detail"]
        assert by_password(bastion, WEB, PASSWORD, "echo in").stdout == b"in\n"


# ---- with a browser ----


@pytest.fixture(scope="session")
def browser_sso(servers_folder: Path, sso: Bastion, engine: Engine, provider: Provider) -> Iterator[Bastion]:
    """Nothing but the device flow."""
    folder = servers_folder / "browser-sso"
    folder.mkdir()
    auth = {"oidc": device_flow(provider), "local": None}
    with serving(another(sso, folder), engine.url, auth=auth) as started:
        yield started


def device_flow(provider: Provider) -> dict[str, Any]:
    client = {"client_id": CLIENT, "client_secret": SECRET, "device_flow": True, "scope": SCOPE}
    return {"issuer": provider.issuer, "ca_file": str(provider.ca_file), "audience": [AUDIENCE], **client}


LINK = rb"(https://\S+user_code=[A-Z-]+).*shows the code [A-Z-]+\. .*Ctrl-C gives up\."


@pytest.mark.parametrize("client", ["openssh", "plink", "dbclient"])
def test_a_browser_from_each_client(browser_sso: Bastion, provider: Provider, client: str) -> None:
    """Each shows the link, and there is nothing to press."""
    call = clients.CLIENTS[client](browser_sso, "alice+sso.front.1", "echo i''n", password=True, terminal=False)
    command = [word for word in call.command if word not in ("sshpass", "-e", "-batch", "-pw", PASSWORD)]
    command = [word.replace("PreferredAuthentications=password", "LogLevel=INFO") for word in command]
    with on_terminal(command, env=call.env) as terminal:
        provider.approve(terminal.expect(LINK)[1].decode(), "alice")
        if client == "plink":
            terminal.expect(rb"Press Return to begin session")  # PuTTY's own, after any login without a key
            terminal.type(b"\r")
        terminal.expect(rb"in\r?\n")
    login = browser_sso.wait_for_event("user.login", user="alice", method="oidc-device")
    assert "app-web" in login["groups"]


def test_a_password_or_a_browser(folder: Path, engine: Engine, provider: Provider) -> None:
    """And the provider is not asked before the user wants it: whoever has a password does not feel its outage."""
    auth = {"oidc": device_flow(provider), "local": {"file": "users.yaml"}}
    with serving(folder, engine.url, auth=auth) as bastion:
        command = bastion.ssh_command(WEB, "echo i''n")
        command[1:1] = [
            "-o",
            "LogLevel=INFO",
            "-o",
            "BatchMode=no",
            "-o",
            "PreferredAuthentications=keyboard-interactive",
        ]
        assert bastion.with_password(PASSWORD, command).stdout == b"in\n"
        with on_terminal(command) as terminal:
            terminal.expect(rb"or type your password: ")
            terminal.type(b"\r")
            provider.approve(terminal.expect(LINK)[1].decode(), "bob")  # not who was asked for
            terminal.expect(rb"or type your password: ")
        bastion.wait_for_event("user.login_failed", user="alice", reason="another_user", method="keyboard-interactive")


def test_the_provider_is_left_alone_when_the_client_leaves(folder: Path, engine: Engine, start: Start) -> None:
    """And at the login limit. Its questions are counted, so it is a small provider of the test's own."""
    with http_server() as server:
        endpoints = {name: f"{server.url}/{name}" for name in ("device_authorization_endpoint", "token_endpoint")}
        metadata = {"issuer": server.url, "jwks_uri": f"{server.url}/jwks", **endpoints}
        code = {"device_code": "d", "user_code": "ABCD", "verification_uri": server.url, "interval": 1}
        server.routes |= {
            "/.well-known/openid-configuration": lambda request: request.json(metadata),
            "/jwks": lambda request: request.json({"keys": [new_key().as_dict(private=False)]}),
            "/device_authorization_endpoint": lambda request: request.json({**code, "expires_in": 600}),
            "/token_endpoint": lambda request: request.json({"error": "authorization_pending"}, 400),
        }
        oidc = {"issuer": server.url, "audience": ["a"], "client_id": "a", "device_flow": True}
        limit = {"login_grace_time": 8}
        with serving(folder, engine.url, auth={"oidc": oidc, "local": None}, ssh=limit) as bastion:

            def asked() -> int:
                return server.paths().count("/token_endpoint")

            command = bastion.ssh_command(WEB, "true", key="bob")
            command[1:1] = ["-o", "BatchMode=no", "-o", "PreferredAuthentications=keyboard-interactive"]
            for leaves in (True, False):
                before, closed = asked(), len(bastion.events("connection.close"))
                client = start(command)
                wait_until(lambda before=before: asked() > before, "the provider is asked")
                if leaves:
                    client.kill()
                else:
                    assert client.wait(30) == 255
                wait_until(lambda closed=closed: len(bastion.events("connection.close")) > closed, "it is closed")
                last = asked()
                time.sleep(2.5)  # nothing to wait for: it is what does not happen
                assert asked() <= last + 1  # one may have been on its way
