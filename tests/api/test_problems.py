"""Whatever fails is told as a problem document, without a secret and without a traceback."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from backstay.api.middleware import LARGEST_BODY
from backstay.control.jobs.jobs import Jobs
from backstay.errors import CatalogUnavailable
from tests.api.world import World

SECRET = "correct horse battery staple"


def test_what_there_is_not_is_told(world: World) -> None:
    problem = world.admin.refused(404, "GET", "/api/nowhere")
    assert (problem["code"], problem["instance"]) == ("NotFound", "/api/nowhere")
    for path in ("/", "/api", "/api/backup/list/", "/api/backup/%2e%2e/list", "/API/backup/list", "/api/backup//list"):
        world.admin.refused(404, "GET", path)


def test_other_methods_of_a_path_are_refused_with_those_that_there_are(world: World) -> None:
    found = world.admin.call("PATCH", "/api/backup/list")
    assert found.status_code == 405
    assert found.json()["code"] == "MethodNotAllowed"
    assert found.headers["allow"] == "GET"
    overridden = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    assert world.admin.call("GET", "/api/roles", headers=overridden).status_code == 200


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not(world: World) -> None:
    body = b'"' + b"x" * LARGEST_BODY + b'"'
    assert world.admin.call("POST", "/api/users", content=body).status_code == 413

    async def pieces() -> Any:
        for _ in range(LARGEST_BODY // 65536 + 1):
            yield b"x" * 65536

    found = world.admin.call("POST", "/api/users", content=pieces())
    assert (found.status_code, found.json()["code"]) == (413, "RequestTooLarge")


def test_only_json_is_read(world: World) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    found = world.admin.call("POST", "/api/users", headers=kind, content=b"name=x")
    assert (found.status_code, found.json()["code"]) == (415, "UnsupportedMediaType")
    for content in (b"{", b"\xff", b"[" * 100_000, b'{"name": 1e999}', b"null"):
        found = world.admin.call("POST", "/api/users", headers={"Content-Type": "application/json"}, content=content)
        assert found.status_code in (400, 422), content[:10]


def test_all_mistakes_of_a_request_are_told_and_no_value_is_repeated(world: World) -> None:
    problem = world.admin.refused(422, "POST", "/api/users", {"name": "Not A Name", "password": 5, "role": SECRET})
    assert {error["key"] for error in problem["errors"]} == {"body.name", "body.password", "body.role"}
    assert "Not A Name" not in str(problem)
    assert SECRET not in str(problem)


def test_an_endpoint_without_a_query_does_nothing_that_is_asked_for_in_one(world: World, backup: Any) -> None:
    where = f"/api/backup/{backup['id']}"
    for method, path, body in (
        ("DELETE", where, None),
        ("POST", "/api/backup/create", {"policy": "files"}),
        ("GET", "/api/monitor", None),
    ):
        problem = world.admin.refused(422, method, f"{path}?dry_run=true", body)
        assert [error["key"] for error in problem["errors"]] == ["query.dry_run"]
    assert world.admin.ok("GET", where)["id"] == backup["id"]
    world.nobody.refused(401, "DELETE", f"{where}?dry_run=true")


@pytest.mark.parametrize("path", ["/api/health/live", "/api/health/ready", "/metrics"])
def test_what_is_probed_minds_no_query(world: World, path: str) -> None:
    assert world.admin.call("GET", f"{path}?_=1760000000&target=a&target=b").status_code == 200


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-14:00", "9000-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"])
def test_a_time_that_no_calendar_has_in_utc_is_a_mistake(world: World, time: str) -> None:
    for path in ("/api/backup/list", "/api/backup/jobs", "/api/audit"):
        assert "since" in world.admin.refused(422, "GET", f"{path}?since={time}")["cause"]


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00Z"])
def test_a_time_behind_which_nothing_can_be_reckoned_is_a_mistake(world: World, backup: Any, time: str) -> None:
    body = {"backup_id": backup["id"], "target": {"path": str(world.root / "late")}, "at": time}
    world.admin.refused(422, "POST", "/api/restore/validate", body)
    made = world.admin.ok("POST", "/api/backup/schedules", {"name": "late", "cron": "0 3 * * *", "policy": "files"})
    where = f"/api/backup/schedules/{made['id']}"
    world.admin.refused(422, "POST", f"{where}/pause", {"until": time})
    world.admin.ok("POST", f"{where}/pause", {"until": "8999-12-31T23:59:59Z"})
    assert len(world.admin.ok("GET", f"{where}/preview?n=5")["times"]) == 5
    world.admin.ok("DELETE", where)


def test_a_target_whose_name_is_too_long_is_a_mistake(world: World, backup: Any) -> None:
    body = {"backup_id": backup["id"], "target": {"path": str(world.root / ("x" * 300))}}
    assert "too long" in world.admin.refused(422, "POST", "/api/restore/validate", body)["cause"]


def test_a_last_event_that_no_catalog_can_hold_is_a_mistake(world: World, backup: Any) -> None:
    for kind in ("backup", "restore"):
        path = f"/api/{kind}/jobs/{backup['job_id']}/events"
        world.admin.refused(422, "GET", path, headers={"Last-Event-ID": "9" * 19})


def test_what_nobody_asked_for_is_refused(world: World) -> None:
    for path in ("/api/backup/list?limt=5", "/api/backup/list?limit=0", "/api/backup/list?limit=1001"):
        world.admin.refused(422, "GET", path)
    for path in ("/api/backup/list?cursor=abc", "/api/users?cursor=%25", "/api/backup/list?since=yesterday"):
        world.admin.refused(422, "GET", path)
    body = {"policy": "files", "held": True}
    world.admin.refused(422, "POST", "/api/backup/create", body)


def test_a_mistake_of_the_program_tells_nothing_of_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: object, **more: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Jobs, "page", broken)
    with caplog.at_level(logging.ERROR, logger="backstay.api"):
        problem = world.admin.refused(500, "GET", "/api/backup/jobs", headers={"X-Request-Id": "mine-1"})
    assert SECRET not in str(problem)
    assert problem["request_id"] == "mine-1"
    assert "mine-1" in caplog.text


def test_a_catalog_that_does_not_answer_is_told_with_when_to_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: object, **more: object) -> None:
        raise CatalogUnavailable("the catalog cannot be used", cause="it is away")

    monkeypatch.setattr(Jobs, "page", away)
    found = world.admin.call("GET", "/api/backup/jobs")
    assert (found.status_code, found.json()["code"], found.json()["transient"]) == (503, "CatalogUnavailable", True)
    assert int(found.headers["retry-after"]) > 0


def test_who_is_not_known_is_told_how_to_be(world: World) -> None:
    found = world.nobody.call("GET", "/api/backup/list")
    assert found.headers["www-authenticate"].startswith("Bearer")
    for given in ("Basic YTpi", "Bearer", "Bearer ", "bearer  x", "Token x", world.tokens["admin"]):
        world.nobody.refused(401, "GET", "/api/backup/list", headers={"Authorization": given})


def test_answers_are_kept_by_nobody_and_framed_by_nobody(world: World) -> None:
    for answer in (world.admin.call("GET", "/api/whoami"), world.nobody.call("GET", "/api/whoami")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    assert world.nobody.call("OPTIONS", "/api/whoami", headers=asked).status_code == 405


def test_the_id_of_a_request_is_taken_only_if_it_is_one(world: World) -> None:
    assert world.admin.call("GET", "/api/whoami", headers={"X-Request-Id": "a-1"}).headers["x-request-id"] == "a-1"
    for odd in ("a b", "x" * 65, "<script>"):
        assert world.admin.call("GET", "/api/whoami", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd
