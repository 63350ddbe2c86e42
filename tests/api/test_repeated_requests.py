"""Requests that come twice, and changes for a version that is no more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from backstay.catalog.models import IdempotencyKey, Matcher, Target
from backstay.control.access.access import Access
from backstay.control.access.principal import Principal, the_machine
from backstay.control.notifying import named
from tests.api.client import Client
from tests.api.world import World

DRY = {"policy": "other", "dry_run": True}
SCHEDULE = {"name": "nightly", "cron": "0 2 * * *", "policy": "other", "enabled": False}


def test_a_request_that_comes_twice_with_its_key_is_carried_out_once(world: World) -> None:
    key = {"Idempotency-Key": "twice"}
    first = world.admin.call("POST", "/api/backup/create", DRY, headers=key)
    again = world.admin.call("POST", "/api/backup/create", dict(reversed(DRY.items())), headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"


def test_many_that_come_at_once_with_one_key_are_carried_out_once(world: World) -> None:
    headers = world.admin.headers({"Idempotency-Key": "at once"})
    headers["Idempotency-Key"] = "at-once"
    answers = world.loop.together(*[("POST", "/api/backup/create", {"json": DRY, "headers": headers})] * 6)
    made = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(made) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}


def test_a_key_stands_for_one_request_of_one_client(world: World) -> None:
    key = {"Idempotency-Key": "mine"}
    first = world.admin.ok("POST", "/api/backup/create", DRY, headers=key)
    world.admin.refused(422, "POST", "/api/backup/create", DRY | {"type": "full"}, headers=key)
    assert world["operator"].ok("POST", "/api/backup/create", DRY, headers=key)["id"] != first["id"]
    for odd in ("", "x" * 129, "a b"):
        world.admin.refused(422, "POST", "/api/backup/create", DRY, headers={"Idempotency-Key": odd})


def test_a_request_that_failed_may_be_sent_again_with_its_key(world: World) -> None:
    key = {"Idempotency-Key": "failed"}
    world.admin.refused(422, "POST", "/api/backup/schedules", SCHEDULE | {"cron": "61 * * * *"}, headers=key)
    made = world.admin.ok("POST", "/api/backup/schedules", SCHEDULE, headers=key)
    assert world.admin.ok("POST", "/api/backup/schedules", SCHEDULE, headers=key)["id"] == made["id"]
    world.admin.ok("DELETE", f"/api/backup/schedules/{made['id']}")


def test_a_kept_answer_is_given_only_to_who_may_still_ask_for_it(world: World) -> None:
    here, there = ([{"role": "operator", "scope": f"/policy/{name}"}] for name in ("other", "files"))
    world.admin.ok("POST", "/api/users", {"name": "moving", "roles": here})
    moving = Client(world.loop, world.admin.ok("POST", "/api/tokens", {"name": "x", "user": "moving"})["token"])
    key = {"Idempotency-Key": "kept"}
    made = moving.ok("POST", "/api/backup/create", DRY, headers=key)
    world.admin.ok("PUT", "/api/users/moving", {"roles": there})
    moving.refused(403, "POST", "/api/backup/create", DRY, headers=key)
    world.admin.ok("PUT", "/api/users/moving", {"roles": here})
    assert moving.ok("POST", "/api/backup/create", DRY, headers=key)["id"] == made["id"]


@pytest.mark.parametrize(
    "begun", [timedelta(minutes=-1), timedelta(hours=1)], ids=["a while ago", "before a clock went back"]
)
def test_a_key_whose_server_stopped_halfway_leads_to_the_job_that_it_made(world: World, begun: timedelta) -> None:
    name = f"stopped{begun.days}"
    key = {"Idempotency-Key": name}
    first = world.admin.ok("POST", "/api/backup/create", DRY, headers=key)
    stopped = (
        update(IdempotencyKey)
        .where(IdempotencyKey.key == name)
        .values(status=None, response={"id": first["id"]}, location=None)
    )
    with world.service.catalog.session() as session:  # as it is between the job and the end of the request
        session.execute(stopped)
    world.admin.refused(409, "POST", "/api/backup/create", DRY, headers=key)  # it may still be at work
    with world.service.catalog.session() as session:
        row = session.get(IdempotencyKey, (_owner(world), name))
        assert row is not None
        row.created_at += begun
    assert world.admin.ok("POST", "/api/backup/create", DRY, headers=key)["id"] == first["id"]


def _owner(world: World) -> str:
    return str(world.admin.ok("GET", "/api/whoami")["token_id"])


def test_a_token_is_shown_once_also_to_who_repeats_the_request(world: World) -> None:
    key = {"Idempotency-Key": "secret"}
    made = world.admin.ok("POST", "/api/tokens", {"name": "once"}, headers=key)
    again = world.admin.ok("POST", "/api/tokens", {"name": "once"}, headers=key)
    assert again == made | {"token": None}
    with world.service.catalog.reading() as session:
        row = session.get(IdempotencyKey, (_owner(world), "secret"))
        assert made["token"] not in str(row.response if row is not None else "")


def test_a_change_for_an_old_version_is_refused(world: World) -> None:
    made = world.admin.call("POST", "/api/backup/schedules", SCHEDULE)
    where, first = made.headers["location"], {"If-Match": made.headers["etag"]}
    changed = world.admin.call("PUT", where, SCHEDULE | {"cron": "0 4 * * *"}, headers=first)
    assert (changed.status_code, changed.json()["cron"]) == (200, "0 4 * * *")
    assert world.admin.refused(412, "PUT", where, SCHEDULE, headers=first)["code"] == "PreconditionFailed"
    world.admin.refused(412, "DELETE", where, headers=first)
    assert world.admin.call("GET", where).headers["etag"] == changed.headers["etag"]
    world.admin.ok("DELETE", where, headers={"If-Match": f'"x", {changed.headers["etag"]}'})
    world.admin.refused(404, "GET", where)


def test_users_and_targets_have_versions_too(world: World) -> None:
    world.admin.ok("POST", "/api/users", {"name": "versioned"})
    tag = world.admin.call("GET", "/api/users/versioned").headers["etag"]
    role = {"roles": [{"role": "viewer", "scope": "/policy/other"}]}
    world.admin.ok("PUT", "/api/users/versioned", role, headers={"If-Match": tag})
    world.admin.refused(412, "DELETE", "/api/users/versioned", headers={"If-Match": tag})
    world.admin.ok("DELETE", "/api/users/versioned")
    assert world.admin.ok("GET", "/api/users/versioned")["disabled"] is True


def test_a_change_of_a_user_is_compared_with_what_others_did_before_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.admin.ok("POST", "/api/users", {"name": "raced"})
    first = {"If-Match": world.admin.call("GET", "/api/users/raced").headers["etag"]}
    users, take_turn = world.service.access.users, Access.take_turn

    def overtaken(self: Access, session: Session, by: Principal) -> Principal:
        found = take_turn(self, session, by)
        users.grant(session, by=the_machine(), name="raced", role="viewer")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Access, "take_turn", overtaken)
        world.admin.refused(412, "PUT", "/api/users/raced", {"roles": []}, headers=first)
        world.admin.refused(412, "DELETE", "/api/users/raced", headers=first)
    world.admin.ok("PUT", "/api/users/raced", {"roles": []}, headers=first)


@pytest.mark.parametrize(
    ("table", "document"), [(Target, {"address": "json://raced.example/x"}), (Matcher, {"targets": ["for-raced"]})]
)
def test_a_change_of_notifications_is_compared_with_what_others_did_before_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, table: type[Target | Matcher], document: dict[str, Any]
) -> None:
    where, body = f"/api/notifications/{table.__name__.lower()}s", {"name": "raced", **document}
    needed = world.admin.ok(
        "POST", "/api/notifications/targets", {"name": "for-raced", "address": "json://raced.example/y"}
    )
    made = world.admin.call("POST", where, body)
    where, first = made.headers["location"], {"If-Match": made.headers["etag"]}
    take_turn = named.take_turn

    def overtaken(session: Session) -> None:
        take_turn(session)
        session.execute(update(table).values(version=table.version + 1))

    with monkeypatch.context() as patched:
        patched.setattr(named, "take_turn", overtaken)
        world.admin.refused(412, "PUT", where, body, headers=first)
        world.admin.refused(412, "DELETE", where, headers=first)
    world.admin.ok("DELETE", where, headers=first)
    world.admin.ok("DELETE", f"/api/notifications/targets/{needed['id']}")


def test_the_last_administrator_stays(world: World) -> None:
    body: dict[str, list[str]] = {"roles": []}
    problem = world.admin.refused(422, "PUT", "/api/users/admin", body)
    assert "administrator" in problem["cause"]


def test_pages_follow_each_other_without_gaps(world: World) -> None:
    for number in range(5):
        world.admin.ok("POST", "/api/users", {"name": f"paged-{number}"})
    names, cursor = [], ""
    while True:
        found = world.admin.ok("GET", f"/api/users?limit=3{cursor}")
        names += [user["name"] for user in found["items"]]
        if found["next"] is None:
            break
        cursor = f"&cursor={found['next']}"
    assert names == sorted(set(names))
    assert len([name for name in names if name.startswith("paged-")]) == 5
