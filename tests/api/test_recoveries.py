"""Recovery plans by the interface: shown, asked for, gone on with, by administrators alone."""

from __future__ import annotations

from typing import Any

from tests.api.world import World

RUN = "/api/recovery/plans/shop/run"


def test_a_plan_is_shown_and_carried_out_by_those_who_may(world: World, backup: Any) -> None:
    plans = {plan["name"]: plan for plan in world.admin.ok("GET", "/api/recovery/plans")["items"]}
    shop = plans["shop"]
    assert (shop["description"], shop["error"]) == ("the files, and a mark", None)
    assert [(step["name"], step["type"], step["confirm"]) for step in shop["steps"]] == [
        ("files", "restore", None),
        ("mark", "command", "mark it?"),
    ]
    for name in ("viewer", "operator", "restorer", "auditor", "stranger"):
        world[name].refused(403, "POST", RUN, {"confirmed": ["mark"]})
        world[name].refused(403, "GET", "/api/recovery/plans")

    unanswered = world.admin.refused(422, "POST", RUN, {})
    assert "mark: mark it?" in unanswered["cause"]
    world.admin.refused(422, "POST", RUN, {"confirmed": ["mark", "files"]})
    world.admin.refused(409, "POST", RUN, {"confirmed": ["mark"], "digest": "0" * 64})
    assert not (world.root / "mark").exists()

    asked = {"confirmed": ["mark"], "digest": shop["digest"]}
    begun = world.admin.ok("POST", RUN, asked)
    where = f"/api/restore/jobs/{begun['id']}"
    done = world.ended(where)
    assert [step["outcome"] for step in done["result"]["steps"]] == ["done", "done"]
    assert (world.root / "mark").is_file()
    listed = world.admin.ok("GET", "/api/restore/jobs?kind=recovery")["items"]
    assert begun["id"] in [job["id"] for job in listed]
    world.admin.refused(409, "POST", RUN, {**asked, "resume": begun["id"]})
    entry = world.admin.ok("GET", "/api/audit?action=recovery.run&outcome=allow")["items"][0]
    assert (entry["actor"], entry["details"]["plan"]) == ("admin", "shop")


def test_a_plan_that_is_being_carried_out_is_refused_meanwhile(world: World) -> None:
    file, go = world.root / "plans/waits.yaml", world.root / "go"
    file.write_text(f"steps: {{wait: {{type: command, command: [sh, -c, 'until [ -e {go} ]; do sleep 0.05; done']}}}}")
    run = "/api/recovery/plans/waits/run"
    first = world.admin.ok("POST", run, {})
    try:
        assert first["id"] in world.admin.refused(409, "POST", run, {})["cause"]
        world.ended(f"/api/restore/jobs/{world.admin.ok('POST', run, {'dry_run': True})['id']}")
    finally:
        go.touch()
    world.ended(f"/api/restore/jobs/{first['id']}")
    world.ended(f"/api/restore/jobs/{world.admin.ok('POST', run, {})['id']}")
    file.unlink()


def test_only_plans_of_the_directory_are_there(world: World, backup: Any) -> None:
    (world.root / "outside.yaml").write_text((world.root / "plans/shop.yaml").read_text())
    for name in ("none", "..%2Foutside", "outside", "shop.yaml"):
        world.admin.refused(404, "POST", f"/api/recovery/plans/{name}/run", {"dry_run": True})
    world.admin.refused(422, "POST", RUN, {"plan": "steps: {}"})
    restore = {"backup_id": backup["id"], "dry_run": True, "target": {"path": str(world.root / "x")}}
    other = world.admin.ok("POST", "/api/restore/initiate", restore)
    world.admin.refused(404, "POST", RUN, {"confirmed": ["mark"], "resume": other["id"]})


def test_a_plan_with_mistakes_is_shown_with_them(world: World) -> None:
    file = world.root / "plans/broken.yaml"
    file.write_text("steps: {a: {type: nothing}}")
    try:
        plans = {plan["name"]: plan for plan in world.admin.ok("GET", "/api/recovery/plans")["items"]}
        assert (plans["broken"]["digest"], plans["broken"]["error"]["code"]) == (None, "PlanInvalid")
        world.admin.refused(422, "POST", "/api/recovery/plans/broken/run", {"dry_run": True})
    finally:
        file.unlink()
