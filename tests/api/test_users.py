"""Users by the interface, as those change them who manage some of them."""

from __future__ import annotations

from tests.api.world import World


def test_a_user_is_not_named_like_the_id_of_another(world: World) -> None:
    boss = world.admin.ok("GET", "/api/users/viewer")["id"]
    roles = [{"role": "viewer", "scope": "/policy/files"}]
    problem = world.token(scopes=["/policy/files"]).refused(422, "POST", "/api/users", {"name": boss, "roles": roles})
    assert "ids" in problem["cause"]
    world.admin.refused(422, "POST", "/api/agents", {"name": boss})


def test_who_manages_a_user_of_one_policy_takes_its_roles_and_shuts_it_out_in_one_request(world: World) -> None:
    world.admin.ok("POST", "/api/users", {"name": "leaver", "roles": [{"role": "viewer", "scope": "/policy/files"}]})
    manager = world.token(scopes=["/policy/files"])
    changed = manager.ok("PUT", "/api/users/leaver", {"roles": [], "disabled": True})
    assert (changed["roles"], changed["disabled"]) == ([], True)
