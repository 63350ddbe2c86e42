"""Who may do what: each endpoint, tried by nobody, by a wrong token, by every role, and by the owner of something else.

The table is the expectation. An endpoint without a row fails, and so does a row without an endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from backstay.api.app import ENDPOINTS
from backstay.api.endpoints import PUBLIC, Endpoint
from tests.api.client import Client
from tests.api.world import World

OPERATOR, RESTORER, AUDITOR, ADMIN = "operator", "restorer", "auditor", "admin"
KNOWN = ("viewer", OPERATOR, RESTORER, AUDITOR, ADMIN)
RESTORES = (OPERATOR, RESTORER, ADMIN)
STALE = {"If-Match": '"stale"'}  # so that what may be deleted is still there afterwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Who may, and what somebody gets who may everything, but only for another policy."""

    may: tuple[str, ...]
    stranger: int
    body: Any = None
    query: str = ""
    headers: dict[str, str] | None = None
    endless: bool = False


def row(may: tuple[str, ...], stranger: int, body: Any = None, **given: Any) -> Row:
    return Row(may=may, stranger=stranger, body=body, **given)


SCHEDULE = {"name": "x", "cron": "0 3 * * *", "policy": "files", "enabled": False}
RESTORE = {"backup_id": "{backup}", "target": {"path": "{out}"}, "dry_run": True}

PROCESS = {"instance": "0" * 16, "host": "h", "version": "1", "protocol": 1}

TABLE: dict[str, Row] = {
    # jobs
    "list_jobs": row(KNOWN, 200),
    "get_job": row(KNOWN, 404),
    "cancel_job": row((OPERATOR, ADMIN), 404),
    "get_job_log": row(KNOWN, 404),
    "follow_job": row(KNOWN, 404),
    # schedules
    "list_schedules": row(KNOWN, 200),
    "create_schedule": row((OPERATOR, ADMIN), 404, SCHEDULE),
    "get_schedule": row(KNOWN, 404),
    "update_schedule": row((OPERATOR, ADMIN), 404, SCHEDULE, headers=STALE),
    "delete_schedule": row((OPERATOR, ADMIN), 404, headers=STALE),
    "run_schedule": row((OPERATOR, ADMIN), 404),
    "pause_schedule": row((OPERATOR, ADMIN), 404, {}, headers=STALE),
    "resume_schedule": row((OPERATOR, ADMIN), 404, headers=STALE),
    "preview_schedule": row(KNOWN, 404),
    # backups
    "create_backup": row((OPERATOR, ADMIN), 404, {"policy": "files", "dry_run": True}),
    "list_backups": row(KNOWN, 200),
    "get_backup": row(KNOWN, 404),
    "get_manifest": row(KNOWN, 404),
    "delete_backup": row((ADMIN,), 404, headers=STALE),
    "validate_backup": row(RESTORES, 404, {"level": "metadata"}),
    "hold_backup": row((OPERATOR, ADMIN), 404, {"reason": "tried"}),
    "release_backup": row((ADMIN,), 404),
    "list_tree": row(RESTORES, 404),
    "download": row(RESTORES, 404, query="?path={file}"),
    "diff_backups": row(RESTORES, 404),
    "list_evidence": row(KNOWN, 404),
    "show_evidence": row(KNOWN, 404),
    "get_evidence": row(KNOWN, 404),
    # restores
    "validate_restore": row(RESTORES, 404, RESTORE),
    "initiate_restore": row(RESTORES, 404, RESTORE),
    "list_restores": row(KNOWN, 200),
    "get_restore": row(KNOWN, 404),
    "cancel_restore": row(RESTORES, 404),
    "get_restore_log": row(KNOWN, 404),
    "follow_restore": row(KNOWN, 404),
    # recoveries
    "list_plans": row((ADMIN,), 403),
    "run_plan": row((ADMIN,), 403, {"dry_run": True}),
    # policies
    "list_policies": row(KNOWN, 200),
    "preview_retention": row(KNOWN, 404, {"policy": "files"}),
    "get_policy": row(KNOWN, 404),
    "list_sources": row(KNOWN, 200),
    "monitor": row(KNOWN, 403),
    # the repository
    "list_repositories": row(KNOWN, 403),
    "get_repository": row(KNOWN, 403),
    "get_stats": row(KNOWN, 403),
    "collect_garbage": row((ADMIN,), 403, {"dry_run": True}),
    "copy_repository": row((ADMIN,), 403),
    "prune_repository": row((ADMIN,), 404, {"policy": "files", "dry_run": True}),
    "verify_repository": row(RESTORES, 404, {"policy": "files", "level": "metadata"}),
    "list_keys": row((AUDITOR, ADMIN), 403),
    "rotate_key": row((ADMIN,), 403, {}),
    # notifications
    "list_targets": row((ADMIN,), 403),
    "create_target": row((ADMIN,), 403, {"name": "x", "address": "no address"}),
    "get_target": row((ADMIN,), 403),
    "update_target": row((ADMIN,), 403, {}, headers=STALE),
    "delete_target": row((ADMIN,), 403, headers=STALE),
    "try_target": row((ADMIN,), 403),
    "list_matchers": row((ADMIN,), 403),
    "create_matcher": row((ADMIN,), 403, {"name": "x", "targets": ["none"]}),
    "get_matcher": row((ADMIN,), 403),
    "update_matcher": row((ADMIN,), 403, {"name": "x", "targets": ["none"]}, headers=STALE),
    "delete_matcher": row((ADMIN,), 403, headers=STALE),
    "list_alerts": row(KNOWN, 403),
    # the audit log
    "list_audit": row((AUDITOR, ADMIN), 403),
    "verify_audit": row((AUDITOR, ADMIN), 403),
    # people
    "whoami": row(KNOWN, 200),
    "list_roles": row(KNOWN, 200),
    "list_users": row((ADMIN,), 200),
    "create_user": row(
        (ADMIN,), 403, {"name": "made-{caller}", "roles": [{"role": "viewer", "scope": "/policy/files"}]}
    ),
    "get_user": row((ADMIN,), 404),
    "update_user": row((ADMIN,), 404, {}, headers=STALE),
    "delete_user": row((ADMIN,), 404, headers=STALE),
    "list_tokens": row(KNOWN, 200),
    "create_token": row(KNOWN, 201, {"name": "tried"}),
    "revoke_token": row((ADMIN,), 404),
    "list_agents": row((ADMIN,), 200),
    "invite_agent": row((ADMIN,), 403, {"name": "agent-{caller}"}),
    "renew_agent": row((), 403, {"request": "x"}),
    "fetch_work": row((), 403, PROCESS | {"wait_s": 0}),
    "report_work": row((), 403, PROCESS | {"attempt": 1}),
    "end_work": row((), 403, PROCESS | {"attempt": 1, "status": "cancelled"}),
    "revoke_agent": row((ADMIN,), 404),
    # events and metrics
    "follow_all": row(KNOWN, 200, endless=True),
    "metrics": row(KNOWN, 403),
}
# Those who have no business there are refused by the endpoint itself, which looks at what is named.
BY_OBJECT = {"revoke_token": 404, "renew_agent": 403}


@pytest.fixture(scope="module")
def names(world: World, backup: Any) -> dict[str, str]:
    """What the placeholders of paths and bodies stand for: all of it belongs to the policy `files`, or to nobody."""
    admin = world.admin
    schedule = admin.ok("POST", "/api/backup/schedules", SCHEDULE)
    asked = {"backup_id": backup["id"], "target": {"path": str(world.root / "matrix")}}
    restore = admin.ok("POST", "/api/restore/initiate", asked)
    token = admin.ok("POST", "/api/tokens", {"name": "of the administrator"})
    target = admin.ok("POST", "/api/notifications/targets", {"name": "hook", "address": "json://localhost:9/x"})
    matcher = admin.ok("POST", "/api/notifications/matchers", {"name": "all", "targets": ["hook"]})
    admin.ok("POST", "/api/agents", {"name": "agent-of-all"})
    return {
        "backup": backup["id"],
        "other": backup["id"],
        "job": backup["job_id"],
        "restore": restore["id"],
        "schedule": schedule["id"],
        "token": token["id"],
        "target": target["id"],
        "matcher": matcher["id"],
        "policy": "files",
        "plan": "shop",
        "repository": "main",
        "user": "auditor",
        "agent": "agent-of-all",
        "evidence": "01jdxxxxxxxxxxxxxxxxxxxxxx",
        "out": str(world.root / "nowhere"),
        "file": backup["paths"][0] + "/d0/f0.txt",
    }


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(inner, names) for key, inner in value.items()}
    return [filled(inner, names) for inner in value] if isinstance(value, list) else value


def tried(client: Client, caller: str, endpoint: Endpoint, row: Row, names: dict[str, str]) -> int:
    names = names | {"caller": caller}
    if endpoint.path.startswith("/api/restore/jobs"):
        names |= {"job": names["restore"]}
    path = filled(endpoint.path + row.query, names)
    return client.call(endpoint.method, path, filled(row.body, names), headers=row.headers).status_code


def test_each_endpoint_has_a_row_and_each_row_an_endpoint() -> None:
    assert set(TABLE) == {endpoint.name for endpoint in ENDPOINTS if endpoint.needs is not PUBLIC}


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.needs is not PUBLIC], ids=lambda e: e.name)
def test_an_endpoint_serves_those_who_may_and_nobody_else(
    world: World, names: dict[str, str], endpoint: Endpoint
) -> None:
    expected = TABLE[endpoint.name]
    assert tried(world.nobody, "nobody", endpoint, expected, names) == 401
    assert tried(Client(world.loop, "bst_wrong"), "wrong", endpoint, expected, names) == 401
    for name in KNOWN:
        if name in expected.may:
            if not expected.endless:
                assert tried(world[name], name, endpoint, expected, names) not in (401, 403), name
        else:
            status = BY_OBJECT.get(endpoint.name, 403)
            assert tried(world[name], name, endpoint, expected, names) == status, name
    if not expected.endless:
        assert tried(world["stranger"], "stranger", endpoint, expected, names) == expected.stranger


HIDDEN = [e for e in ENDPOINTS if e.needs is not PUBLIC and TABLE[e.name].stranger == 404]


@pytest.mark.parametrize("endpoint", HIDDEN, ids=lambda e: e.name)
def test_what_somebody_may_not_see_is_told_of_as_what_does_not_exist(
    world: World, names: dict[str, str], evidence: str, endpoint: Endpoint
) -> None:
    asked, there = TABLE[endpoint.name], names | {"evidence": evidence}
    if endpoint.path.startswith("/api/restore/jobs"):
        there["job"] = names["restore"]
    absent = there | dict.fromkeys(("backup", "job", "schedule", "token", "evidence", "other"), "0" * 26)
    absent |= dict.fromkeys(("policy", "user", "agent"), "not-there")

    def told(known: dict[str, str]) -> tuple[int, str]:
        body = filled(asked.body, known)
        if isinstance(body, dict) and "policy" in body:
            body["policy"] = known["policy"]
        answer = world["stranger"].call(endpoint.method, filled(endpoint.path + asked.query, known), body)
        text = answer.text.replace(answer.json()["request_id"], "REQUEST")
        for name in ("backup", "job", "schedule", "token", "evidence", "policy", "user", "agent"):
            text = text.replace(f"{known[name]}'", "ID'").replace(f"/{known[name]}", "/ID")
        return answer.status_code, text

    assert told(there) == told(absent)


@pytest.fixture(scope="module")
def evidence(world: World, backup: Any) -> str:
    """A report about a backup."""
    begun = world.admin.ok("POST", f"/api/backup/{backup['id']}/validate", {"level": "metadata"})
    world.ended(f"/api/backup/jobs/{begun['id']}")
    return str(world.admin.ok("GET", f"/api/backup/{backup['id']}/evidence")["items"][0]["id"])


def test_nobody_is_told_which_users_there_are(world: World) -> None:
    for name, status in (("stranger", 404), ("viewer", 403)):
        asked = world[name]
        for method, path, body in (
            ("GET", "/api/tokens?user={}", None),
            ("POST", "/api/tokens", {"name": "x", "user": "{}"}),
        ):
            told = [
                asked.refused(status, method, path.format(user), filled(body, {"": user}))
                for user in ("auditor", "not-there")
            ]
            assert told[0]["detail"].replace("auditor", "not-there") == told[1]["detail"]
            assert told[0].get("cause") == told[1].get("cause")


def test_policies_and_sources_are_counted_and_named_as_far_as_somebody_sees_them(world: World) -> None:
    stranger = world["stranger"]
    assert stranger.ok("POST", "/api/backup/create", {"dry_run": True})["policy"] == "other"
    hidden = stranger.refused(404, "POST", "/api/backup/create", {"policy": "files", "sources": ["nope"]})
    assert "more" not in str(hidden)
    one = world.token(scopes=["/policy/files/source/files-more"])
    absent = one.refused(404, "POST", "/api/backup/create", {"policy": "files", "sources": ["nope"]})
    assert absent["cause"] == "it has more"
    other = one.refused(404, "POST", "/api/backup/create", {"policy": "files", "sources": ["files"]})
    assert other["cause"] == "it has more"


def test_a_policy_is_restored_as_far_as_somebody_sees_it(world: World, backup: Any) -> None:
    one = world.token(scopes=[f"/policy/files/source/{backup['source']}"])
    asked = {"policy": "files", "target": {"path": str(world.root / "part")}}
    (planned,) = one.ok("POST", "/api/restore/validate", asked)["backups"]
    assert one.ok("GET", f"/api/backup/{planned}")["source"] == backup["source"]


def test_lists_show_a_stranger_nothing_of_others(world: World, names: dict[str, str]) -> None:
    stranger = world["stranger"]
    for path in ("/api/backup/list", "/api/backup/jobs", "/api/restore/jobs"):
        assert {item["policy"] for item in stranger.ok("GET", path)["items"]} <= {"other"}, path
    for path in ("/api/backup/schedules", "/api/sources"):
        assert {item["policy"] for item in stranger.ok("GET", path)["items"]} <= {"other"}, path
    assert [item["name"] for item in stranger.ok("GET", "/api/policies")["items"]] == ["other"]
    shown = {item["name"] for item in stranger.ok("GET", "/api/users")["items"]}
    assert not shown & {"admin", "viewer", "operator", "restorer", "auditor"}
    assert stranger.ok("GET", "/api/backup/jobs?policy=files")["items"] == []


def test_an_administrator_of_one_policy_makes_users_with_roles_there_alone(world: World) -> None:
    stranger = world["stranger"]
    stranger.refused(403, "POST", "/api/users", {"name": "of-nobody"})
    world.admin.refused(404, "GET", "/api/users/of-nobody")
    made = stranger.ok(
        "POST", "/api/users", {"name": "theirs", "roles": [{"role": "viewer", "scope": "/policy/other"}]}
    )
    assert stranger.ok("POST", "/api/tokens", {"name": "t", "user": "theirs"})["scopes"] == ["/policy/other"]
    stranger.ok("DELETE", f"/api/users/{made['name']}")


def test_a_token_may_less_than_its_owner_and_never_more(world: World, backup: Any) -> None:
    reads = world.token(permissions=["backup:read"], scopes=["/policy/files/source/files"])
    assert [one["source"] for one in reads.ok("GET", "/api/backup/list")["items"]][:1] == ["files"]
    reads.refused(403, "POST", "/api/backup/create", {"policy": "files"})
    reads.refused(403, "GET", "/api/backup/schedules")
    elsewhere = world.token(scopes=["/policy/files/source/files-more"])
    elsewhere.refused(404, "GET", f"/api/backup/{backup['id']}")
    elsewhere.refused(404, "DELETE", f"/api/backup/{backup['id']}")
    elsewhere.refused(404, "POST", "/api/backup/create", {"policy": "files"})
    begun = elsewhere.ok("POST", "/api/backup/create", {"policy": "files", "sources": ["more"], "dry_run": True})
    assert elsewhere.ok("GET", f"/api/backup/jobs/{begun['id']}")["sources"] == ["files-more"]


def test_a_revoked_token_is_known_no_more(world: World) -> None:
    made = world.admin.ok("POST", "/api/tokens", {"name": "short"})
    short = Client(world.loop, made["token"])
    short.ok("GET", "/api/whoami")
    world.admin.ok("DELETE", f"/api/tokens/{made['id']}")
    short.refused(401, "GET", "/api/whoami")


def test_a_token_in_the_address_is_none(world: World) -> None:
    problem = world.nobody.refused(401, "GET", f"/api/whoami?token={world.tokens['admin']}")
    assert world.tokens["admin"] not in str(problem)


def test_refusals_are_in_the_audit_log(world: World, backup: Any) -> None:
    world["viewer"].refused(403, "DELETE", f"/api/backup/{backup['id']}")
    world["stranger"].refused(404, "GET", f"/api/backup/{backup['id']}")
    entries = world.admin.ok("GET", "/api/audit?outcome=deny&limit=20")["items"]
    told = [(entry["actor"], entry["action"], entry["reason"]) for entry in entries]
    assert ("viewer", "backup.delete", "missing_permission") in told
    assert any(actor == "stranger" and action == "read.backups" for actor, action, _ in told)
