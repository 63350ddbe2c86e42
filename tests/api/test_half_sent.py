"""Requests whose sender loses the right to them while the body is on its way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from backstay.api.call import Call
from backstay.control.access.principal import the_machine
from tests.api.client import Client
from tests.api.world import World

TOKEN = ("POST", "/api/tokens", {"name": "lasting"})
GIVING = [
    ("POST", "/api/users", {"name": "eve", "roles": [{"role": "admin"}]}),
    ("PUT", "/api/users/viewer", {"roles": [{"role": "admin"}]}),
    TOKEN,
    ("POST", "/api/agents", {"name": "eve"}),
]


def half_sent(client: Client, method: str, path: str, body: Any, meanwhile: Callable[[], None]) -> httpx.Response:
    """The answer to a request after whose first bytes something happens."""

    async def pieces() -> AsyncIterator[bytes]:
        text = json.dumps(body).encode()
        yield text[:5]
        meanwhile()
        yield text[5:]

    return client.loop.request(
        method, path, content=pieces(), headers=client.headers({"Content-Type": "application/json"})
    )


def revoking(world: World, client: Client) -> Callable[[], None]:
    token_id = client.ok("GET", "/api/whoami")["token_id"]

    def revoke() -> None:
        with world.service.catalog.session() as session:
            world.service.access.tokens.revoke(session, by=the_machine(), token_id=token_id)

    return revoke


@pytest.mark.parametrize(("method", "path", "body"), [*GIVING, ("POST", "/api/backup/create", {"policy": "other"})])
def test_a_token_that_is_revoked_before_the_body_is_there_does_nothing(
    world: World, method: str, path: str, body: Any
) -> None:
    limited = world.token()
    assert half_sent(limited, method, path, body, revoking(world, limited)).status_code == 401


@pytest.mark.parametrize(("method", "path", "body"), GIVING)
def test_what_gives_rights_looks_again_in_its_own_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any
) -> None:
    monkeypatch.setattr(Call, "still_allowed", lambda _call: None)  # as if it was revoked right after that
    limited = world.token()
    assert half_sent(limited, method, path, body, revoking(world, limited)).status_code == 401


def test_a_user_whose_roles_are_taken_before_the_body_is_there_does_nothing(world: World) -> None:
    world.admin.ok("POST", "/api/users", {"name": "falling", "roles": [{"role": "admin"}]})
    falling = Client(world.loop, world.admin.ok("POST", "/api/tokens", {"name": "x", "user": "falling"})["token"])

    def demote() -> None:
        with world.service.catalog.session() as session:
            world.service.access.users.revoke(session, by=the_machine(), name="falling", role="admin")

    assert half_sent(falling, *TOKEN, demote).status_code == 403


def test_who_is_not_known_is_answered_before_the_body(world: World) -> None:
    def unread() -> None:
        pytest.fail("the body was read")

    assert half_sent(Client(world.loop, "wrong"), *TOKEN, unread).status_code == 401


def test_a_client_that_goes_away_within_its_body_leaves_nothing(world: World) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in world.admin.headers().items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/tokens",
        "raw_path": b"/api/tokens",
        "query_string": b"",
        "headers": [*headers, (b"content-length", b"20")],
        "client": ("127.0.0.1", 4000),
    }
    world.loop.run(world.app(scope, receive, send))
    assert sent[0]["status"] == 400
