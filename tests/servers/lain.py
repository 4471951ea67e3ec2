"""LAIN's single sign-on and console, from the shapes of their answers: the real ones can not be had."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.servers.http import HttpServer, Request, http_server

TOKENS: Mapping[str, dict[str, Any]] = {
    "alices-token": {
        "name": "alice",
        "fullname": "Alice",
        "email": "alice@example.org",
        "mobile": "1",
        "groups": ["developers", "lainapp-example-org-a-b"],
    },
    "bobs-token": {"name": "bob", "fullname": "Bob", "email": "bob@example.org", "mobile": "2", "groups": []},
}
ROLES = {("alices-token", "web"): "admin", ("alices-token", "shop"): "", ("bobs-token", "vault"): "normal"}


def me(request: Request) -> None:
    person = TOKENS.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
    request.json(person) if person else request.json({"message": "invalid token", "data": None}, 401)


def roles(app: str) -> Any:
    def answer(request: Request) -> None:
        token = request.headers.get("access-token", "")
        if token not in TOKENS:
            request.json({"message": "unauthorized"}, 401)
        elif (token, app) in ROLES:
            request.json({"role": {"role": ROLES[token, app]}, "message": "", "url": request.path})
        else:
            request.json({"message": "forbidden"}, 403)

    return answer


@contextlib.contextmanager
def lain() -> Iterator[HttpServer]:
    """Both on one port; apps web, shop and vault, each with a role for somebody."""
    with http_server({"/api/me": me}) as server:
        for app in ("web", "shop", "vault"):
            server.routes[f"/api/v1/repos/{app}/roles/"] = roles(app)
        yield server
