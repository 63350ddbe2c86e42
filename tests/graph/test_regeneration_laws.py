"""Whatever is lost, whatever the policy: all comes back, only what must is touched, each after what it is made from."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.graph.executors import ThreadExecutor
from backstay.graph.outputs import StoredOutputs
from backstay.graph.regeneration import plan_regeneration
from tests.graph.worlds import World, actions

pytestmark = pytest.mark.property


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    names: list[str] = []
    for at in range(draw(st.integers(1, 12))):
        deps = draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []
        world.add(f"n{at}", deps, deterministic=draw(st.integers(0, 4)) > 0, memory_usage=draw(st.integers(0, 3)))
        names.append(f"n{at}")
    return world


@st.composite
def policies(draw: st.DrawFn, world: World) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "validate_before_restore": draw(st.booleans()),
        "parallel": draw(st.none() | st.integers(1, 4)),
        "memory_limit": draw(st.none() | st.integers(1, 4)),
        "strategy": draw(st.sampled_from(["incremental", "full", "selective"])),
    }
    if policy["strategy"] == "selective":
        names = [node.id for node in world.graph]
        policy["nodes"] = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return policy


def subsets(world: World) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([node.id for node in world.graph]), unique=True)


def below(world: World, names: set[str]) -> set[str]:
    """The nodes and everything that is made from them."""
    found: set[str] = set()
    for node in world.graph:  # in an order in which each comes after its dependencies
        if node.id in names or found.intersection(node.deps):
            found.add(node.id)
    return found


def needed(world: World, wanted: set[str], lost: set[str]) -> set[str]:
    """What a selective restore has to recompute: the lost ones of the wanted, and what is lost of what these need."""
    found: set[str] = set()
    front = list(wanted)
    while front:
        name = front.pop()
        if name in lost and name not in found:
            found.add(name)
            front.extend(world.graph[name].deps)
    return found


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_what_was_lost_comes_back_and_nothing_else_is_touched(data: st.DataObject) -> None:
    world = data.draw(worlds())
    lost = set(data.draw(subsets(world)))
    policy = data.draw(policies(world))
    damaged = set(data.draw(subsets(world))) - lost if policy["validate_before_restore"] else set()
    original = dict(world.values.data)
    world.lose(*lost)
    world.damage(*damaged)
    outputs = StoredOutputs(world.values)
    plan = plan_regeneration(world.graph, outputs, world.options(**policy))
    report = world.restore(outputs, executor=ThreadExecutor(data.draw(st.integers(1, 3))), **policy)

    assert report.ok, report
    gone = lost | damaged
    must = needed(world, set(policy["nodes"]), gone) if policy["strategy"] == "selective" else gone
    assert sorted(world.made) == sorted(must)
    assert {node.id for node in plan.nodes if node.action == "recompute"} == must
    position = {name: at for at, name in enumerate(world.made)}
    for name in world.made:
        assert all(position[dep] < position[name] for dep in world.graph[name].deps if dep in position)
    assert {key: world.values.data.get(key) for node in world.graph for key in node.values if node.id in must} == {
        world.key(name): original[world.key(name)] for name in must
    }
    if policy["strategy"] != "selective":
        assert world.values.data == original
        assert set(actions(report)) == {node.id for node in world.graph}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_new_versions_reach_exactly_what_is_made_from_them(data: st.DataObject) -> None:
    world = data.draw(worlds())
    lost = set(data.draw(subsets(world)))
    world.lose(*lost)
    new = {name for name in lost if not world.graph[name].metadata.deterministic}
    for name in new:
        world.salts[name] = b"new"
    old = dict(world.values.data)
    report = world.restore()

    assert report.ok, report
    assert set(report.changed) == below(world, new)
    assert set(world.made) == lost | below(world, new)
    assert len(world.made) == len(set(world.made))
    assert old.items() <= world.values.data.items(), "no earlier version goes"
    current = {node.id: report.changed.get(node.id, node) for node in world.graph}
    for name, node in current.items():
        parts = [world.values.data[current[dep].hash or ""] for dep in node.deps]
        assert world.values.data[node.hash or ""] == world.output(name, parts)
        assert set(node.metadata.input_hashes) == {current[dep].hash for dep in node.deps}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_failure_stops_exactly_what_cannot_do_without_it(data: st.DataObject) -> None:
    world = data.draw(worlds())
    lost = set(data.draw(subsets(world)))
    broken = set(data.draw(subsets(world)))
    world.lose(*lost)
    make = world.make

    def fail(node: Any, inputs: Any) -> bytes:
        if node.id in broken:
            raise ValueError(hashlib.sha256(node.id.encode()).hexdigest())
        return make(node, inputs)

    world.recomputers.recomputes("join")(fail)
    report = world.restore()
    bad: set[str] = set()
    for node in world.graph:
        if node.id in lost and (node.id in broken or bad.intersection(node.deps)):
            bad.add(node.id)
    found = actions(report)
    assert report.ok == (not bad)
    assert {name for name, action in found.items() if action in ("failed", "blocked")} == bad
    assert {name for name, action in found.items() if action == "recomputed"} == lost - bad
    for outcome in report.nodes:
        if outcome.action == "blocked":
            assert found[outcome.blame] == "failed"
            assert outcome.blame in broken
