"""How long does it take to sign in, from connecting to "you are in", by each way?"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
from rich.table import Table

from tests.servers.bastion import PASSWORD, Bastion, serving
from tests.servers.lain import lain
from tests.servers.oidc import CLIENT, SCOPE, SECRET, Provider, oidc_provider
from tests.servers.slapd import PASSWORD as LDAP_PASSWORD
from tests.servers.slapd import PEOPLE, READER_DN, slapd

NAMES = (
    "login-key",
    "login-password",
    "login-ldap",
    "login-jwt",
    "login-introspection",
    "login-userinfo",
    "login-lain",
    "login-browser",
)
LOGINS = 200
AT_ONCE = 4  # browsers: each waits most of its time
INTERVAL = 1  # seconds between two questions whether the user has agreed; providers say 5


async def signed_in(bastion: Bastion, user: str, **how: Any) -> float:
    start = time.perf_counter()
    options = {"known_hosts": None, "config": None, "agent_path": None, "client_keys": None, **how}
    async with asyncssh.connect("127.0.0.1", bastion.port, username=user, **options):
        return time.perf_counter() - start


class Browser(asyncssh.SSHClient):
    """Agrees to what it is shown; `at` is when."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.at = 0.0

    def kbdint_auth_requested(self) -> str:
        return ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: object) -> list[str]:
        link = next(line.strip() for line in instructions.splitlines() if line.startswith("    "))
        asyncio.get_running_loop().run_in_executor(None, self._agree, link)
        return []

    def _agree(self, link: str) -> None:
        self._provider.approve(link, "alice")
        self.at = time.perf_counter()


async def by_browser(bastion: Bastion, provider: Provider) -> float:
    """From when the user has agreed in the browser."""
    client = Browser(provider)
    await signed_in(bastion, "alice", client_factory=lambda: client, preferred_auth="keyboard-interactive")
    return time.perf_counter() - client.at


@contextlib.contextmanager
def bastions(folder: Path) -> Iterator[Mapping[str, Callable[[], Awaitable[float]]]]:
    """One login by each way; the bastions have no engine, which no login needs."""
    with contextlib.ExitStack() as stack:

        def made(name: str) -> Path:
            (folder / name).mkdir()
            return folder / name

        directory = stack.enter_context(slapd(made("slapd")))
        directory.add_user("carol")
        provider = stack.enter_context(oidc_provider(made("oidc"), interval=INTERVAL, seconds=36_000))
        servers = stack.enter_context(lain())
        client = {"client_id": CLIENT, "client_secret": SECRET, "audience": [CLIENT]}
        oidc = {"issuer": provider.issuer, "ca_file": str(provider.ca_file), **client}
        ldap = {"servers": [directory.tls_url], "ca_file": str(directory.ca_file), "search_base": PEOPLE}
        ldap |= {"bind_dn": READER_DN, "bind_password": LDAP_PASSWORD}
        introspection = {"oidc": {**oidc, "opaque_tokens": "introspection"}}

        def bastion(name: str, **auth: Any) -> Bastion:
            auth = {"local": {"file": str(folder / "first/users.yaml")}, **auth}
            if name != "first":
                (made(name) / "keys").symlink_to(folder / "first/keys")
            else:
                made(name)
            return stack.enter_context(serving(folder / name, f"unix://{folder}/none.sock", auth=auth))

        first = bastion("first", ldap=ldap, **introspection)
        userinfo = bastion("userinfo", oidc={**oidc, "opaque_tokens": "userinfo"})
        lains = bastion("lain", lain={"sso": servers.url})
        browser = bastion("browser", oidc={**oidc, "device_flow": True, "scope": SCOPE}, local=None)
        tokens = provider.tokens("alice")
        opaque = f"token:{tokens['access_token']}"
        yield {
            "login-key": partial(signed_in, first, "bob", client_keys=[str(folder / "first/bob_key")]),
            "login-password": partial(signed_in, first, "bob", password=PASSWORD),
            "login-ldap": partial(signed_in, first, "carol", password=LDAP_PASSWORD),
            "login-jwt": partial(signed_in, first, "alice", password=tokens["id_token"]),
            "login-introspection": partial(signed_in, first, "alice", password=opaque),
            "login-userinfo": partial(signed_in, userinfo, "alice", password=opaque),
            "login-lain": partial(signed_in, lains, "alice", password="token:alices-token"),
            "login-browser": partial(by_browser, browser, provider),
        }


async def latencies(login: Callable[[], Awaitable[float]], at_once: int) -> list[float]:
    await login()  # what is looked up once only, such as keys, has been
    taken: list[float] = []
    while len(taken) < LOGINS:
        taken += await asyncio.gather(*(login() for _ in range(min(at_once, LOGINS - len(taken)))))
    return taken


def measure(names: Sequence[str]) -> Table:
    table = Table("login by", "median, ms", "95 %, ms", title=f"{LOGINS} logins by each way")
    with tempfile.TemporaryDirectory(prefix="bb-") as folder, bastions(Path(folder)) as logins:
        for name in names:
            taken = asyncio.run(latencies(logins[name], AT_ONCE if name == "login-browser" else 1))
            marks = (statistics.median(taken), statistics.quantiles(taken, n=20)[-1])
            table.add_row(name.removeprefix("login-"), *(f"{1000 * seconds:.1f}" for seconds in marks))
    return table
