"""What comes back different reaches what is made from it, within a graph and through others."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.errors import CycleFound
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.graph.outputs import StoredOutputs
from backstay.graph.recorded_inputs import unmet
from backstay.graph.regeneration import RegenerationOptions, regenerate
from tests.graph.failures import explode, failing
from tests.graph.worlds import CAPABILITY, World, actions, key_of, result, with_changes

# -- what comes back different


def test_a_failure_stays_one_when_a_second_plan_is_made() -> None:
    world = World()
    world.add("bad")
    world.add("on bad", ["bad"])
    world.add("x")
    world.add("on x", ["x"])
    world.lose("bad", "on bad", "on x")
    world.damage("x")
    failing(world, "bad", explode)
    report = world.restore(validate_before_restore=False)
    assert actions(report) == {"bad": "failed", "on bad": "blocked", "x": "recomputed", "on x": "recomputed"}
    assert "ZeroDivisionError" in result(report, "bad").reason
    assert result(report, "on bad").blame == "bad"


def test_what_is_not_deterministic_comes_back_as_a_new_version_and_so_does_what_is_made_from_it() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"])
    world.add("top", ["mid", "seed"])
    world.add("apart")
    world.lose("seed")
    world.salts["seed"] = b"another draw"
    before = {node.id: node.hash for node in world.graph}
    report = world.restore()
    assert report.ok, report
    assert actions(report) == {"seed": "recomputed", "mid": "recomputed", "top": "recomputed", "apart": "reused"}
    assert set(report.changed) == {"seed", "mid", "top"}
    assert "new version" in result(report, "seed").reason
    assert result(report, "mid").reason.startswith("something that it was made from has changed")
    after = with_changes(world.graph, report.changed)
    for name in ("seed", "mid", "top"):
        assert after[name].hash == result(report, name).hash != before[name]
        assert after[name].metadata.output_hashes == (after[name].hash,)
    assert set(after["top"].metadata.input_hashes) == {after["mid"].hash, after["seed"].hash}
    assert all(world.values.exists(before[name] or "") for name in ("mid", "top")), "history is preserved"
    world.graph = after
    world.made.clear()
    assert actions(world.restore()) == dict.fromkeys(("seed", "mid", "top", "apart"), "reused")


def test_what_comes_back_the_same_touches_nothing_that_is_made_from_it() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"])
    world.lose("seed")
    report = world.restore()
    assert actions(report) == {"seed": "recomputed", "mid": "reused"}
    assert not report.changed


def test_a_selective_restore_says_what_it_left_stale() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("wanted", ["seed"])
    world.add("other", ["seed"])
    world.lose("seed", "wanted")
    world.salts["seed"] = b"another draw"
    report = world.restore(strategy="selective", nodes=["wanted"])
    assert actions(report) == {"seed": "recomputed", "wanted": "recomputed"}
    assert report.stale == ("other",)


def test_changes_spread_to_selected_nodes_in_whatever_order_they_are_named() -> None:
    for names in (["far", "mid", "top"], ["top", "mid", "far"]):
        world = World()
        world.add("seed", deterministic=False)
        world.add("mid", ["seed"])
        world.add("far", ["mid"])
        world.add("top", ["seed"])
        world.lose("seed", "top")
        world.salts["seed"] = b"another draw"
        report = world.restore(strategy="selective", nodes=names)
        assert actions(report) == dict.fromkeys(("seed", "mid", "far", "top"), "recomputed")


def test_a_node_that_was_made_from_another_version_is_stale() -> None:
    world = World()
    world.add("a")
    world.add("b", ["a"], input_hashes=(key_of(b"an older a"),))
    assert world.restore(validate_before_restore=False).ok
    assert not world.made
    report = world.restore()
    assert "made from another version of a" in result(report, "b").reason
    assert actions(report) == {"a": "reused", "b": "recomputed"}
    assert report.changed["b"].metadata.input_hashes == (world.key("a"),)


@pytest.mark.parametrize(
    ("recorded", "stale"),
    [
        pytest.param("ab", False, id="the outputs in their order"),
        pytest.param("ba", True, id="exchanged"),
        pytest.param("aa", True, id="one of them twice"),
        pytest.param("bax", False, id="in another order, with something from outside"),
        pytest.param("aax", True, id="one of them twice, with something from outside"),
        pytest.param("a", True, id="only one of them"),
    ],
)
def test_each_recorded_input_stands_for_one_dependency(recorded: str, stale: bool) -> None:
    world = World()
    world.chain("a")
    world.chain("b")
    keys = {"a": world.key("a"), "b": world.key("b"), "x": key_of(b"from outside")}
    world.add("c", ["a", "b"], input_hashes=tuple(keys[name] for name in recorded))
    report = world.restore()
    assert report.ok, report
    assert actions(report)["c"] == ("recomputed" if stale else "reused")
    world.graph = with_changes(world.graph, report.changed)
    assert actions(world.restore())["c"] == "reused"


def test_a_node_with_equal_inputs_is_stale_when_only_one_of_them_was_so() -> None:
    world = World()
    for name in ("a", "b"):
        key = world.values.store(b"the same")
        world.graph.add(Node(id=name, hash=key, status="completed"))
    world.add("c", ["a", "b"], input_hashes=(key_of(b"the same"), key_of(b"another b")))
    report = world.restore()
    assert "made from another version of b" in result(report, "c").reason
    assert report.changed["c"].metadata.input_hashes == (world.key("a"), world.key("b"))


@pytest.mark.parametrize("order", [("d1", "d2"), ("d2", "d1")])
def test_an_input_that_two_dependencies_could_mean_stands_for_the_one_that_has_no_other(order: tuple[str, str]) -> None:
    keys = {name: key_of(name.encode()) for name in ("h", "k", "h2")}
    outputs = {"d1": ("h", "k"), "d2": ("h2", "h")}
    nodes = [
        Node(
            id=name,
            hash=keys[outputs[name][0]],
            metadata=NodeMetadata(output_hashes=tuple(keys[one] for one in outputs[name])),
        )
        for name in order
    ]
    recorded = [keys["k"], keys["h"], key_of(b"from outside")]
    assert unmet(recorded, nodes) is None
    assert unmet([keys["h"], key_of(b"x"), key_of(b"y")], nodes) == 1


def _with_a_stale_node_between() -> World:
    """Of a → b → c → d b was made from an older a, and the others are made from that b."""
    world = World()
    world.chain("a")
    key = world.values.store(world.output("b", [b"an older a"]))
    older: Any = {"capability": CAPABILITY, "input_hashes": (key_of(b"an older a"),)}
    world.graph.add(Node(id="b", hash=key, deps=("a",), status="completed", metadata=older))
    world.add("c", ["b"])
    world.add("d", ["c"])
    return world


@pytest.mark.parametrize("policy", [{}, {"strategy": "selective", "nodes": ["c"]}])
def test_what_is_made_from_a_stale_node_is_made_again_also_where_it_alone_is_named(policy: dict[str, Any]) -> None:
    world = _with_a_stale_node_between()
    report = world.restore(**policy)
    assert report.ok, report
    assert actions(report) | {"b": "recomputed", "c": "recomputed"} == actions(report)
    b = world.output("b", [world.value("a")])
    assert result(report, "c").hash == key_of(world.output("c", [b]))
    assert report.stale == (() if "d" in actions(report) else ("d",))


def test_nothing_else_is_looked_at_where_nothing_that_a_named_node_is_made_from_is_stale() -> None:
    world = _with_a_stale_node_between()
    assert actions(world.restore(strategy="selective", nodes=["a"])) == {"a": "reused"}
    policy: dict[str, Any] = {"strategy": "selective", "nodes": ["d"], "validate_before_restore": False}
    assert actions(world.restore(**policy)) == {"d": "reused"}
    world = World()
    world.chain("a", "b", "c")
    world.values.opened.clear()
    assert actions(world.restore(strategy="selective", nodes=["c"])) == {"c": "reused"}
    assert world.values.opened == [world.key("c")]


def test_what_cannot_be_made_anew_from_changed_inputs_is_blocked() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"], capability="magic")
    world.lose("seed")
    world.salts["seed"] = b"another draw"
    report = world.restore()
    assert actions(report) == {"seed": "recomputed", "mid": "blocked"}


def test_changes_reach_what_had_to_wait_for_a_second_plan() -> None:
    world = World()
    world.add("seed", deterministic=False, input_hashes=())
    world.add("other", input_hashes=())
    world.add("top", ["seed", "other"], input_hashes=())
    world.lose("seed")
    world.damage("other")  # found when top is made anew
    world.salts["seed"] = b"another draw"
    report = world.restore(validate_before_restore=False)
    assert report.ok, report
    assert actions(report) == dict.fromkeys(("seed", "other", "top"), "recomputed")
    assert report.changed["top"].hash == result(report, "top").hash


# -- other graphs


def test_nodes_of_other_graphs_are_restored_where_they_are_needed() -> None:
    mine, theirs = World(), World()
    theirs.values = mine.values
    theirs.graph = MetadataGraph("theirs")
    theirs.chain("a", "b", "unused")
    theirs.lose("a", "b", "unused")
    b = theirs.graph["b"]
    data = mine.output("c", [b"b\n" + key_of(b"a").removeprefix("sha256:").encode()])
    metadata: Any = {"capability": CAPABILITY}
    mine.graph.add(Node(id="c", hash=key_of(data), deps=("graph:theirs#b",), status="completed", metadata=metadata))
    options = RegenerationOptions(recomputers=mine.recomputers, others={"theirs": theirs.graph})
    report = regenerate(mine.graph, StoredOutputs(mine.values), options)
    assert report.ok, report
    assert [node.id for node in report.nodes] == ["graph:theirs#a", "graph:theirs#b", "c"]
    assert mine.made == ["a", "b", "c"]
    assert mine.values.exists(b.hash or "")

    mine.values.data.pop(key_of(data))
    alone = regenerate(mine.graph, StoredOutputs(mine.values), RegenerationOptions(recomputers=mine.recomputers))
    assert "graph:theirs#b, which is not at hand" in result(alone, "c").reason


def test_a_cycle_through_two_graphs_is_found() -> None:
    one, two = MetadataGraph("one"), MetadataGraph("two")
    one.add(Node(id="a", hash=key_of(b""), deps=("graph:two#b",), status="completed"))
    two.add(Node(id="b", hash=key_of(b""), deps=("graph:one#a",), status="completed"))
    with pytest.raises(CycleFound, match="a → graph:two#b → a"):
        regenerate(one, StoredOutputs(World().values), RegenerationOptions(others={"two": two}))
