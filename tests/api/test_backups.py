"""Backups, their contents, schedules, policies and restores, by the interface."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert

from backstay.api.backing import ApiOptions
from backstay.api.call import Call
from backstay.api.routes import schedules as schedule_routes
from backstay.catalog.checkpoints import CheckpointFile
from backstay.catalog.models import Backup, ScheduleRecord
from tests.api.world import World


def test_a_backup_is_listed_with_what_was_said_of_it(world: World, backup: Any) -> None:
    admin = world.admin
    told = ("files", "files", "the first one", ["first"])
    assert (backup["policy"], backup["source"], backup["description"], backup["tags"]) == told
    for query in ("policy=files", "source=files", "tag=first", "text=first", f"type={backup['type']}", "held=false"):
        assert backup["id"] in [one["id"] for one in admin.ok("GET", f"/api/backup/list?{query}")["items"]], query
    for query in ("policy=other", "tag=none", "verified=true", "until=2000-01-01T00:00:00Z"):
        assert backup["id"] not in [one["id"] for one in admin.ok("GET", f"/api/backup/list?{query}")["items"]], query
    for name in (backup["id"], backup["id"][:20], "latest:files"):
        assert admin.ok("GET", f"/api/backup/{name}")["source"] == "files"
    manifest = admin.ok("GET", f"/api/backup/{backup['id']}/manifest")
    assert (len(manifest["sha256"]), manifest["unreadable"]) == (64, 0)


def test_directories_and_files_of_a_backup_are_read_without_a_restore(world: World, backup: Any) -> None:
    admin, where, root = world.admin, f"/api/backup/{backup['id']}", backup["paths"][0]
    first = admin.ok("GET", f"{where}/tree?path={root}&limit=2")
    rest = admin.ok("GET", f"{where}/tree?path={root}&limit=2&cursor={first['next']}")
    names = [Path(entry["path"]).name for entry in first["items"] + rest["items"]]
    assert (names, rest["next"]) == (["d0", "d1", "d2"], None)
    file = f"{root}/d0/f0.txt"
    found = admin.call("GET", f"{where}/download?path={file}")
    original = Path(file).read_bytes()
    assert found.content == original
    digest = base64.b64encode(hashlib.sha256(original).digest()).decode()
    assert found.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert found.headers["content-disposition"].endswith("f0.txt")
    admin.refused(422, "GET", f"{where}/download?path={root}/d0")
    admin.refused(404, "GET", f"{where}/download?path={root}/none")
    admin.refused(422, "GET", f"{where}/tree?path=/../etc")
    admin.refused(404, "GET", f"{where}/tree?path={root}/left-out.tmp")
    entries = admin.ok("GET", "/api/audit?action=backup.download&limit=5")["items"]
    assert file in [entry["details"].get("path") for entry in entries]


def test_what_changed_between_two_backups_is_told(world: World, backup: Any) -> None:
    changed = world.root / "src" / "d1" / "f1.txt"
    changed.write_text("other words")
    later = world.backup(sources=["files"])
    found = world.admin.ok("GET", f"/api/backup/{backup['id']}/diff/{later['backup_id']}")["items"]
    assert [(one["path"], one["change"]) for one in found] == [(str(changed), "changed")]


def test_a_held_backup_is_not_deleted(world: World, backup: Any) -> None:
    kept = world.backup(sources=["more"])["backup_id"]
    where = f"/api/backup/{kept}"
    assert world.admin.ok("POST", f"{where}/hold", {"reason": "the auditor asked"})["held"] is True
    assert world.admin.refused(409, "DELETE", where)["code"] == "HoldViolation"
    assert world.admin.ok("GET", "/api/backup/list?held=true")["items"][0]["id"] == kept
    world.admin.ok("DELETE", f"{where}/hold")
    world.admin.ok("DELETE", where)
    world.admin.refused(404, "GET", where)
    world.admin.ok("DELETE", where)  # again, which changes nothing


@pytest.mark.parametrize("length", [25, 8])
def test_a_backup_is_deleted_by_its_whole_id_only(world: World, backup: Any, length: int) -> None:
    for named in (backup["source"], "latest", backup["id"][:length]):
        problem = world.admin.refused(422, "DELETE", f"/api/backup/{named}")
        assert "the whole id" in problem["errors"][0]["message"]
    world.admin.ok("GET", f"/api/backup/{backup['id']}")


def test_a_backup_is_verified(world: World, backup: Any) -> None:
    begun = world.admin.ok("POST", f"/api/backup/{backup['id']}/validate", {"level": "full"})
    job = world.ended(f"/api/backup/jobs/{begun['id']}")
    assert (job["kind"], job["backup_id"]) == ("verification", backup["id"])
    assert world.admin.ok("GET", f"/api/backup/{backup['id']}")["verified_ok"] is True
    lines = world.admin.ok("GET", f"/api/backup/jobs/{job['id']}/log")["items"]
    assert all(line["message"] for line in lines)


def test_sources_and_policies_that_there_are_not_are_told(world: World) -> None:
    create = "/api/backup/create"
    world.admin.refused(404, "POST", create, {"policy": "none"})
    world.admin.refused(404, "POST", create, {"policy": "files", "services": ["none"]})
    problem = world.admin.refused(422, "POST", create, {"services": ["*"]})
    assert "policy" in problem["solution"]
    wrong: list[Any] = [
        {"policy": "files", "source": "/etc"},
        {"policy": "files", "sources": "files"},
        {"policy": 5},
        [],
    ]
    for body in wrong:
        world.admin.refused(422, "POST", create, body)


def test_a_restore_is_planned_then_carried_out_as_planned(world: World, backup: Any) -> None:
    target = world.root / "planned"
    plan = world.admin.ok("POST", "/api/restore/validate", {"backup_id": backup["id"], "target": {"path": str(target)}})
    assert (plan["conflict_count"], plan["fits"], plan["refused"]) == (0, True, False)
    assert not target.exists()
    world["restorer"].refused(404, "POST", "/api/restore/initiate", {"plan_id": plan["plan_id"]})
    problem = world.admin.refused(
        422, "POST", "/api/restore/initiate", {"plan_id": plan["plan_id"], "conflict": "overwrite"}
    )
    assert "conflict" in problem["cause"]
    begun = world.admin.ok("POST", "/api/restore/initiate", {"plan_id": plan["plan_id"]})
    job = world.ended(f"/api/restore/jobs/{begun['id']}")
    assert (job["kind"], job["restore_id"], job["backup_id"]) == ("restore", job["id"], backup["id"])
    assert len([path for path in target.rglob("f*.txt") if path.is_file()]) == backup["files"]
    again = {"backup_id": backup["id"], "target": {"path": str(target)}}
    conflict = world.admin.refused(409, "POST", "/api/restore/initiate", again)
    assert (conflict["code"], bool(conflict["conflicts"])) == ("RestoreConflict", True)
    newer = world.admin.ok("POST", "/api/restore/initiate", again | {"conflict": "if_newer"})
    world.ended(f"/api/restore/jobs/{newer['id']}")
    listed = [one["id"] for one in world.admin.ok("GET", "/api/restore/jobs")["items"]]
    assert {job["id"], newer["id"]} <= set(listed)
    world.admin.refused(404, "GET", f"/api/backup/jobs/{job['id']}")


def test_a_plan_whose_target_became_a_link_meanwhile_is_not_carried_out(world: World, backup: Any) -> None:
    target, elsewhere = world.root / "swapped/out", world.root / "not-asked-for"
    target.mkdir(parents=True)
    elsewhere.mkdir()
    plan = world.admin.ok("POST", "/api/restore/validate", {"backup_id": backup["id"], "target": {"path": str(target)}})
    target.rmdir()
    target.symlink_to(elsewhere)
    begun = world.admin.ok("POST", "/api/restore/initiate", {"plan_id": plan["plan_id"]})
    job = world.ended(f"/api/restore/jobs/{begun['id']}", status="failed")
    assert job["error"]["code"] == "RestoreConflict"
    assert list(elsewhere.iterdir()) == []


def test_an_old_plan_is_none(world: World, backup: Any) -> None:
    body = {"backup_id": backup["id"], "target": {"path": str(world.root / "late")}}
    world.app.state.backing.options = ApiOptions(plan_minutes=-1)
    try:
        plan = world.admin.ok("POST", "/api/restore/validate", body)
    finally:
        world.app.state.backing.options = ApiOptions()
    world.admin.refused(404, "POST", "/api/restore/initiate", {"plan_id": plan["plan_id"]})


def test_a_restore_takes_the_newest_of_each_source_at_a_time(world: World, backup: Any) -> None:
    body = {"policy": "files", "services": ["files"], "target": {"path": str(world.root / "at")}}
    plan = world.admin.ok("POST", "/api/restore/validate", body | {"target_timestamp": backup["time"]})
    assert plan["backups"] == [backup["id"]]
    before = datetime.fromisoformat(backup["time"]) - timedelta(days=1)
    world.admin.refused(404, "POST", "/api/restore/validate", body | {"at": before.isoformat()})
    world.admin.refused(422, "POST", "/api/restore/validate", body | {"at": "2026-01-01T00:00:00"})


@pytest.fixture
def later_runs(world: World, backup: Any) -> Iterator[Any]:
    """A run of both sources, and so many runs after it that no page has them all."""
    job = world.backup()
    run = {one: world.admin.ok("GET", f"/api/backup/list?source={one}")["items"][0] for one in ("files", "files-more")}
    assert {one["job_id"] for one in run.values()} == {job["id"]}
    columns = [column.name for column in Backup.__table__.columns]
    with world.service.catalog.session() as session:
        row = session.get_one(Backup, run["files-more"]["id"])
        same = {name: getattr(row, name) for name in columns}
        made = [
            same | {"id": f"01{number:024}", "job_id": f"02{number:024}", "time": row.time + timedelta(seconds=1)}
            for number in range(101)
        ]
        session.execute(insert(Backup), made)
    yield run
    with world.service.catalog.session() as session:
        session.execute(delete(Backup).where(Backup.id.in_([one["id"] for one in made])))
    world.admin.ok("DELETE", f"/api/backup/{run['files-more']['id']}")  # `latest:files` has one meaning again


@pytest.mark.parametrize(
    ("sources", "meant"),
    [
        ([], ["files"]),
        (["files"], ["files"]),
        (["more"], ["files-more"]),
        (["files", "more"], ["files", "files-more"]),
        (["*"], ["files", "files-more"]),
    ],
)
def test_sources_beside_a_backup_are_those_of_its_run(
    world: World, later_runs: Any, sources: list[str], meant: list[str]
) -> None:
    body = {
        "backup_id": later_runs["files"]["id"],
        "sources": sources,
        "target": {"path": str(world.root / "beside")},
    }
    plan = world.admin.ok("POST", "/api/restore/validate", body)
    assert plan["backups"] == [later_runs[one]["id"] for one in meant]


def test_targets_are_held_to_what_the_service_allows(world: World, backup: Any) -> None:
    allowed = world.root / "allowed"
    (allowed / "inside").mkdir(parents=True)
    (allowed / "out").symlink_to(world.root)
    backing = world.app.state.backing
    backing.options = ApiOptions(restore_roots=(allowed,))

    def plan(path: str, status: int) -> None:
        body = {"backup_id": backup["id"], "target": {"path": path}}
        assert world.admin.call("POST", "/api/restore/validate", body).status_code == status, path

    try:
        plan(f"{allowed}/inside", 200)
        for path in (f"{world.root}/elsewhere", f"{allowed}/../elsewhere", f"{allowed}/out/x", "relative", "/"):
            plan(path, 422)
    finally:
        backing.options = ApiOptions()
    plan(f"{world.service.data_dir}/inside", 422)


@pytest.mark.parametrize("what", [{"type": "prune", "policy": "files"}, {"type": "gc"}])
def test_who_may_not_delete_does_not_by_a_schedule(world: World, backup: Any, what: Any) -> None:
    body = {"name": f"an operator's {what['type']}", "cron": "0 0 1 1 *", **what}
    operator, where = world["operator"], "/api/backup/schedules"
    operator.refused(403, "POST", where, body)
    made = world.admin.ok("POST", where, body)
    operator.refused(403, "POST", f"{where}/{made['id']}/run", {})
    world.admin.ok("DELETE", f"{where}/{made['id']}")


@pytest.mark.parametrize("how", [{"conflict": "overwrite"}, {"conflict": "if_newer"}, {"delete": True}])
def test_who_may_not_restore_in_place_replaces_and_deletes_nothing(world: World, backup: Any, how: Any) -> None:
    source = str(world.root / "src")
    body = {"backup_id": backup["id"], "target": {"path": source, "source": source}, **how}
    for path in ("/api/restore/validate", "/api/restore/initiate"):
        refusal = world["operator"].refused(403, "POST", path, body)
        assert "restore:in_place" in refusal["cause"]
    world["restorer"].ok("POST", "/api/restore/validate", body)


@pytest.mark.parametrize("place", ["/etc/cron.d", "/usr/lib/x", "/tmp/../etc", "/lib/systemd"])
def test_who_may_not_restore_in_place_restores_nothing_into_the_system(world: World, backup: Any, place: str) -> None:
    body = {"backup_id": backup["id"], "target": {"path": place}}
    world["operator"].refused(403, "POST", "/api/restore/validate", body)
    world["operator"].ok("POST", "/api/restore/validate", body | {"target": {"path": str(world.root / "usr")}})


def test_a_target_that_cannot_be_looked_at_is_refused(
    world: World, backup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.realpath

    def look(path: Any, **given: Any) -> Any:
        if str(path) == "/hidden/x":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **given)

    monkeypatch.setattr(os.path, "realpath", look)
    body = {"backup_id": backup["id"], "target": {"path": "/hidden/x"}}
    refusal = world.admin.refused(422, "POST", "/api/restore/validate", body)
    assert refusal["cause"] == "/hidden/x cannot be looked at: Permission denied"


def test_what_writes_over_living_things_needs_a_permission_of_its_own(world: World, backup: Any) -> None:
    operator, initiate = world["operator"], "/api/restore/initiate"
    operator.refused(403, "POST", initiate, {"backup_id": backup["id"], "mode": "in_place"})
    database = {"backup_id": backup["id"], "target": {"database": "postgresql://localhost/x"}}
    operator.refused(403, "POST", initiate, database)
    secret = {"backup_id": backup["id"], "target": {"database": "postgresql://u:secret@localhost/x"}}
    assert "secret" not in str(world.admin.refused(422, "POST", initiate, secret))
    both = {"backup_id": backup["id"], "mode": "in_place", "target": {"path": "/x"}}
    world.admin.refused(422, "POST", initiate, both)
    world.admin.refused(422, "POST", initiate, {"backup_id": backup["id"]})


@pytest.mark.parametrize(("what", "body"), [("pause", {}), ("resume", None)])
def test_of_two_who_pause_or_resume_one_version_the_second_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, body: Any
) -> None:
    made = world.admin.call(
        "POST", "/api/backup/schedules", {"name": what, "cron": "0 3 * * *", "policy": "files", "enabled": False}
    )
    where, tag, looked = made.headers["location"], made.headers["etag"], schedule_routes._changeable

    def overtaken(call: Call, ident: str) -> ScheduleRecord:
        found = looked(call, ident)
        world.service.schedules.resume(ident)  # another request, between the look and the change
        return found

    monkeypatch.setattr(schedule_routes, "_changeable", overtaken)
    world.admin.refused(412, "POST", f"{where}/{what}", body, headers={"If-Match": tag})
    world.admin.ok("POST", f"{where}/{what}", body)
    monkeypatch.undo()
    world.admin.ok("DELETE", where)


def test_a_schedule_is_made_previewed_paused_and_run(world: World) -> None:
    admin = world.admin
    body = {"name": "Daily Full Backup", "cron_expression": "0 2 * * *", "backup_type": "full", "policy": "other"}
    made = admin.ok("POST", "/api/backup/schedules", body | {"services": ["*"], "retention_days": 30})
    where = f"/api/backup/schedules/{made['id']}"
    assert (made["type"], made["sources"], made["retention_days"]) == ("full", [], 30)
    times = admin.ok("GET", f"{where}/preview?n=3")["times"]
    assert [time[11:16] for time in times] == ["02:00"] * 3
    until = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    paused = admin.ok("POST", f"{where}/pause", {"until": until, "reason": "holidays"})
    assert (paused["paused"], paused["paused_reason"]) == (True, "holidays")
    assert admin.ok("POST", f"{where}/resume")["paused"] is False
    run = admin.ok("POST", f"{where}/run")
    assert world.ended(f"/api/backup/jobs/{run['id']}")["schedule_id"] == made["id"]
    assert admin.ok("GET", f"/api/backup/jobs?schedule={made['id']}")["items"][0]["id"] == run["id"]
    for wrong in ({"cron": "99 * * * *"}, {"timezone": "Mars/Base"}, {"policy": None}, {"jitter_s": -1}):
        asked = {"name": "x", "cron": "0 2 * * *", "policy": "other"} | wrong
        admin.refused(422, "POST", "/api/backup/schedules", asked)
    of_file = admin.ok("GET", "/api/backup/schedules?origin=file")["items"][0]
    admin.refused(422, "DELETE", f"/api/backup/schedules/{of_file['id']}")
    admin.ok("DELETE", where)


def test_a_schedule_does_nothing_that_its_maker_may_not(world: World) -> None:
    """An operator may not delete: neither by a new schedule, nor by changing one or by starting that of another."""
    admin, operator = world.admin, world["operator"]
    made = {}
    for kind in ("prune", "gc"):
        body = {"name": kind, "cron": "0 2 1 1 *", "type": kind} | ({} if kind == "gc" else {"policy": "files"})
        operator.refused(403, "POST", "/api/backup/schedules", body)
        made[kind] = admin.ok("POST", "/api/backup/schedules", body)
        there = f"/api/backup/schedules/{made[kind]['id']}"
        for what in ("run", "pause", "resume"):
            operator.refused(403, "POST", f"{there}/{what}", {} if what == "pause" else None)
        harmless = {"name": kind, "cron": "0 2 1 1 *", "type": "full", "policy": "files"}
        operator.refused(403, "PUT", there, harmless)
        operator.refused(403, "DELETE", there)
        assert operator.ok("GET", there)["paused"] is False
    own = {"name": "own", "cron": "0 2 1 1 *", "type": "full", "policy": "files"}
    where = f"/api/backup/schedules/{operator.ok('POST', '/api/backup/schedules', own)['id']}"
    operator.refused(403, "PUT", where, own | {"type": "prune"})
    assert admin.ok("GET", where)["type"] == "full"
    only_schedules = world.token(permissions=["schedule:write", "schedule:read"])
    only_schedules.refused(403, "POST", "/api/backup/schedules", own)
    admin.ok("DELETE", where)
    for one in made.values():
        admin.ok("DELETE", f"/api/backup/schedules/{one['id']}")


def test_what_has_nothing_to_do_is_refused_when_it_is_asked_for(world: World) -> None:
    """The policy `other` keeps everything, and the policy file names no copies."""
    prune = {"name": "p", "cron": "0 2 1 1 *", "type": "prune", "policy": "other"}
    for path, body in (
        ("/api/backup/schedules", prune),
        ("/api/backup/schedules", {"name": "c", "cron": "0 2 1 1 *", "type": "copy"}),
        ("/api/repositories/main/prune", {"policy": "other"}),
        ("/api/repositories/main/copy", None),
    ):
        refusal = world.admin.refused(422, "POST", path, body)
        assert ("keeps everything" in refusal["cause"]) or ("names no `copies`" in refusal["cause"])
        assert refusal["solution"]


def test_policies_show_what_holds_and_what_retention_would_do(world: World, backup: Any) -> None:
    admin = world.admin
    shown = admin.ok("GET", "/api/policies/files")
    assert shown["sources"] == ["files", "files-more"]
    assert shown["effective"]["retention"]["keep_last"] == {"value": 100, "from": "file"}
    assert shown["monitor"]["status"] in ("success", "in_progress")
    preview = admin.ok("POST", "/api/policies/preview", {"policy": "files", "rules": {"keep_last": 1}})
    kept = {(one["source"], one["keep"]) for one in preview["decisions"]}
    assert preview["kept"] + preview["dropped"] == len(preview["decisions"])
    assert ("files", True) in kept
    admin.refused(422, "POST", "/api/policies/preview", {"policy": "files", "rules": {}})
    sources = {one["snapshot_name"]: one for one in admin.ok("GET", "/api/sources")["items"]}
    assert sources["files"]["last_backup_id"] is not None


def test_the_repository_tells_of_itself_and_its_keys(world: World, backup: Any) -> None:
    admin = world.admin
    assert admin.ok("GET", "/api/repositories")["items"][0]["backups"] >= 1
    assert admin.ok("GET", "/api/repositories/main/stats")["packs"] >= 1
    admin.refused(404, "GET", "/api/repositories/other")
    keys = admin.ok("GET", "/api/keys")
    assert [slot["kind"] for slot in keys["slots"]][:1] == ["passphrase"]
    before = len(keys["epochs"])
    assert len(admin.ok("POST", "/api/keys/rotate", {})["epochs"]) == before + 1
    begun = admin.ok("POST", "/api/repositories/main/gc", {"dry_run": True})
    assert world.ended(f"/api/backup/jobs/{begun['id']}")["kind"] == "gc"


def test_a_job_that_ended_is_not_cancelled(world: World, backup: Any) -> None:
    world.admin.refused(409, "DELETE", f"/api/backup/jobs/{backup['job_id']}")
    world.admin.refused(404, "DELETE", "/api/backup/jobs/nope")
    stream = world.admin.call("GET", f"/api/backup/jobs/{backup['job_id']}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "event: job" in stream.text
    assert stream.text.rstrip().endswith("event: end\ndata: {}")


def test_metrics_and_readiness(world: World, backup: Any) -> None:
    assert b"backup_jobs_total" in world.admin.call("GET", "/metrics").content
    assert world.nobody.ok("GET", "/api/health/ready") == {"status": "ok"}
    assert world.nobody.ok("GET", "/api/health/live") == {"status": "ok"}


def test_every_change_is_in_the_audit_log_which_is_whole(world: World, backup: Any) -> None:
    actions = {entry["action"] for entry in world.admin.ok("GET", "/api/audit?limit=1000")["items"]}
    assert "backup.create" in actions
    assert world.admin.ok("GET", "/api/audit/verify")["ok"] is True


def test_the_audit_log_is_verified_against_what_is_kept_beside_the_catalog(world: World, backup: Any) -> None:
    world.service.sign_audit_log()
    kept = CheckpointFile(world.service.data_dir / "audit.checkpoints")
    before = kept.path.read_bytes()
    kept.append(replace(kept.read()[-1], seq=10**6))
    try:
        verdict = world.admin.ok("GET", "/api/audit/verify")
    finally:
        kept.path.write_bytes(before)
    assert (verdict["ok"], "but had 1000000" in verdict["problem"]) == (False, True)
    assert world.admin.ok("GET", "/api/audit/verify")["ok"] is True
