"""Every endpoint says what right it needs, what it does, and how it answers."""

from __future__ import annotations

import re

from fastapi.routing import APIRoute

from backstay import errors
from backstay.api.app import ENDPOINTS, routes_of
from backstay.api.endpoints import PUBLIC, Endpoint, Public
from backstay.api.problems import STATUS, status_of
from backstay.control.access.permissions import PERMISSIONS
from backstay.errors import BackstayError
from tests.api.world import World

OPEN_TO_ALL = {
    ("GET", "/api/health/live"),
    ("GET", "/api/health/ready"),
    ("GET", "/api/openapi.json"),
    ("POST", "/api/agents/join"),
    ("GET", "/api/agents/authority"),
}
ERRORS = [found for name in errors.__all__ if isinstance(found := getattr(errors, name), type)]


def told(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def test_an_endpoint_needs_a_permission_that_there_is_or_is_one_of_the_few_open_ones() -> None:
    for endpoint in ENDPOINTS:
        if (endpoint.method, endpoint.path) in OPEN_TO_ALL:
            assert endpoint.needs is PUBLIC, told(endpoint)
        else:
            assert not isinstance(endpoint.needs, Public), told(endpoint)
            assert endpoint.needs in PERMISSIONS, told(endpoint)


def test_what_changes_something_has_a_name_in_the_audit_log() -> None:
    for endpoint in ENDPOINTS:
        if endpoint.method != "GET":
            assert (endpoint.does is None) == (endpoint.path == "/api/policies/preview"), told(endpoint)
        assert endpoint.does is None or re.fullmatch(r"[a-z]+\.[a-z]+", endpoint.does), told(endpoint)


def test_all_routes_of_the_application_are_declared_and_described(world: World) -> None:
    assert all(isinstance(route, APIRoute) for route in world.app.routes)
    assert routes_of(world.app) == list(ENDPOINTS)
    described = {(method.upper(), path) for path, methods in world.app.openapi()["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(names) == len(set(names))


def test_each_description_has_the_problems_the_security_and_a_summary(world: World) -> None:
    document = world.nobody.ok("GET", "/api/openapi.json")
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            public = (method.upper(), path) in OPEN_TO_ALL
            assert operation["security"] == ([] if public else [{"token": []}])
            assert ("x-permission" in operation) == (not public)
            for status in ("422", "429", "500", *(() if public else ("401", "403"))):
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_no_path_with_a_word_is_hidden_by_one_that_takes_any_id() -> None:
    for at, later in enumerate(ENDPOINTS):
        for earlier in ENDPOINTS[:at]:
            pattern = re.sub(r"\{[a-z]+\}", "[^/]+", earlier.path)
            same = earlier.method == later.method and re.fullmatch(pattern, later.path)
            assert not same, f"{told(later)} is never reached because of {told(earlier)}"


def test_every_error_has_a_status_of_its_own_and_nothing_else_has() -> None:
    assert set(STATUS) == {kind.__name__ for kind in ERRORS if issubclass(kind, BackstayError)}


def test_an_error_of_a_kind_that_is_not_in_the_table_has_the_status_of_its_parent() -> None:
    class Special(errors.NotFound):
        pass

    assert status_of(Special("gone")) == 404
