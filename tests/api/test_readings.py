"""What only reads goes a straight way; nobody can tell by the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from backstay.api.app import ENDPOINTS
from backstay.api.readings import Readings, reading_of
from backstay.errors import CatalogUnavailable
from tests.api.client import Loop
from tests.api.world import World

READ_FROM_THE_CATALOG = {endpoint.name for endpoint in ENDPOINTS if reading_of(endpoint) is not None}
PATHS = (
    *sorted({e.path for e in ENDPOINTS if e.method == "GET" and e.name in READ_FROM_THE_CATALOG}),
    "/api/backup/create",
    "/api/backup/list/",
    "/api/backup/a%2Fb",
    "/api/backup/%00",
    "/api/backup/a%0Ab",
    "/api/backup/a%3Fb%23c",
    "/api/backup/a b%20%C3%BC\\",
    "/api/backup/" + "x" * 300,
    "/api/nothing",
)
WORDS = (
    "1",
    "2",
    "0",
    "-1",
    "1001",
    "01",
    " 1",
    "1.0",
    "files",
    "other",
    "full",
    "true",
    "no",
    "",
    "a\tb",
    "\0",
    "ü",
    "%",
)
MOMENTS = ("2026-01-01T00:00:00Z", "2026-01-01", "0")
NAMES = ("limit", "cursor", "policy", "source", "type", "tag", "held", "status", "kind", "user", "level", "unknown")
QUERIES = st.lists(
    st.tuples(st.sampled_from((*NAMES, "since", "until")), st.sampled_from(WORDS + MOMENTS)), max_size=3
).map(urlencode)


class OtherWay:
    """The same application, as the framework alone would answer."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await FastAPI.__call__(self._app, scope, receive, send)


@pytest.fixture(scope="module")
def framework(world: World) -> Iterator[Loop]:
    with Loop(OtherWay(world.app)) as loop:  # type: ignore[arg-type]
        yield loop


def told(answer: httpx.Response) -> Any:
    """All of an answer but the id of its request."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")}
    if not answer.headers["content-type"].startswith("application/problem"):
        return answer.status_code, headers, answer.content
    document = answer.json()
    assert document.pop("request_id") == answer.headers["x-request-id"]
    return answer.status_code, headers, document


def test_lists_and_single_things_go_the_straight_way_and_nothing_else_does() -> None:
    assert {"list_backups", "get_backup", "list_jobs", "get_job", "list_audit", "whoami"} <= READ_FROM_THE_CATALOG
    for endpoint in ENDPOINTS:
        straight = endpoint.name in READ_FROM_THE_CATALOG
        if endpoint.method != "GET" or endpoint.slow or endpoint.media_type != "application/json":
            assert not straight, endpoint.name
    assert (
        not {"download", "follow_job", "metrics", "health_live", "openapi", "get_stats", "list_plans"}
        & READ_FROM_THE_CATALOG
    )


def test_what_is_no_reading_is_left_to_the_framework(world: World) -> None:
    readings = Readings(world.app.state.backing, ENDPOINTS)

    def taken(method: str, path: str, query: bytes = b"", **more: Any) -> bool:
        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": [], **more}
        return readings.take(scope)

    assert taken("GET", "/api/backup/list", b"limit=3")
    assert taken("GET", "/api/backup/anything")
    assert not taken("HEAD", "/api/backup/list")
    assert not taken("DELETE", "/api/backup/anything")
    assert not taken("GET", "/api/backup/list", b"limit=3", root_path="/api")
    assert not taken("GET", "/api/backup/list", b"limit=0")
    assert not taken("GET", "/api/backup/list", b"limit=3&limit=3")
    assert not taken("GET", "/api/backup/anything/manifest")
    assert not taken("GET", "/api/events")
    assert not taken("GET", "/api/nothing")


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(PATHS),
    query=QUERIES,
    name=st.sampled_from(("viewer", "stranger", "auditor", "admin", "nobody")),
)
def test_both_ways_answer_alike(world: World, framework: Loop, backup: Any, path: str, query: str, name: str) -> None:
    for known in ("backup", "job", "user", "policy"):
        ident = {"backup": backup["id"], "job": backup["job_id"], "user": "viewer", "policy": "files"}[known]
        path = path.replace("{" + known + "}", ident)
    where = f"{path}?{query}" if query else path
    client = world.nobody if name == "nobody" else world[name]
    if path.startswith("/api/audit"):
        where = path + "?limit=1&action=none.such"  # all other requests of this test are written there
    straight = client.call("GET", where)
    other = framework.request("GET", where, headers=client.headers())
    assert told(straight) == told(other)


@pytest.mark.parametrize("ident", ["a%3Fb%23c", "a%5Cb", "a%25b", "a%20b", "%C3%BC", "a%0Ab", "..", "a%7Fb"])
def test_both_ways_tell_of_a_strange_path_alike(world: World, framework: Loop, ident: str) -> None:
    where = f"/api/backup/{ident}"
    assert told(world.admin.call("GET", where)) == told(framework.request("GET", where, headers=world.admin.headers()))


def test_a_token_that_was_revoked_is_refused_at_the_next_request_and_that_is_written_down(world: World) -> None:
    made = world.admin.ok("POST", "/api/tokens", {"name": "short-lived"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    for where in ("/api/backup/list", "/api/backup/jobs", "/api/whoami"):
        assert world.nobody.call("GET", where, headers=headers).status_code == 200
    world.admin.ok("DELETE", f"/api/tokens/{made['id']}")
    answer = world.nobody.call("GET", "/api/backup/list", headers=headers)
    assert answer.status_code == 401
    line = world.admin.ok("GET", "/api/audit?limit=1&outcome=deny")["items"][0]
    assert (line["object"], line["reason"]) == ("/api/backup/list", "revoked_token")


def test_a_refusal_that_cannot_be_written_down_is_told_as_that(
    world: World, framework: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise CatalogUnavailable("the catalog cannot be used", cause="the disk is full")

    monkeypatch.setattr(world.app.state.backing.audit, "record", away)
    straight = world.nobody.call("GET", "/api/backup/list")
    assert straight.status_code == 503
    assert told(straight) == told(framework.request("GET", "/api/backup/list"))


def test_a_list_that_nobody_asked_for_before_is_that_of_who_asks(world: World, backup: Any) -> None:
    """Statements are kept; what one may see is part of them."""
    shown = {}
    for _ in range(2):
        for name in ("viewer", "stranger", "admin", "stranger"):
            shown[name] = [one["id"] for one in world[name].ok("GET", "/api/backup/list?policy=files")["items"]]
        assert backup["id"] in shown["viewer"]
        assert shown["stranger"] == []
        assert shown["admin"] == shown["viewer"]
