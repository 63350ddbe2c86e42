"""Snapshots whose nodes depend on nodes of other graphs."""

from __future__ import annotations

import pytest

from backstay.errors import (
    CycleFound,
    MissingDependency,
)
from backstay.graph.inputs import Inputs
from backstay.graph.manager import RestoreMeans
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator
from tests.graph.stored import Stored, made

V = [Validator.generate(f"v{number}") for number in range(3)]
TWO_OF_THREE = QuorumPolicy(required=2, validators=[validator.public for validator in V])


@pytest.fixture
def stored() -> Stored:
    return Stored()


def _capable(capability: str) -> NodeMetadata:
    return NodeMetadata(capability=capability)


def test_nodes_of_other_graphs_are_kept_and_restored_in_order(stored: Stored) -> None:
    source = stored.graph({"raw": b"1"}, name="source")
    source.replace(source["raw"].model_copy(update={"metadata": _capable("raw")}))
    pinned = stored.manager(source).create_snapshot()
    user = stored.graph({}, name="user")
    twice_of_raw = made("twice", stored.values.store(b"11"), "graph:source#raw")
    user.add(twice_of_raw.model_copy(update={"metadata": _capable("twice")}))
    manager = stored.manager(user)
    shot = manager.create_snapshot()
    assert shot.requires == {"source": pinned.id}
    calls = []
    recomputers = Recomputers()

    @recomputers.recomputes("raw")
    def raw(node: Node, inputs: Inputs) -> bytes:
        assert not inputs
        calls.append(node.id)
        return b"1"

    @recomputers.recomputes("twice")
    def twice(node: Node, inputs: Inputs) -> bytes:
        calls.append(node.id)
        return inputs["graph:source#raw"].bytes() * 2

    for key in stored.values.list():
        stored.values.delete(key, force=True)
    assert manager.restore_snapshot(shot.id, means=RestoreMeans(recomputers=recomputers)).ok
    assert calls == ["raw", "twice"]


def test_values_of_other_graphs_stay_when_these_are_deleted(stored: Stored) -> None:
    source = stored.graph({"raw": b"1", "else": b"2"}, name="source")
    pinned = stored.manager(source).create_snapshot()
    user = stored.graph({}, name="user")
    user.add(made("x", stored.values.store(b"x"), "graph:source#raw"))
    manager = stored.manager(user)
    manager.create_snapshot()
    assert stored.manager(source).delete_snapshot(pinned.id)
    assert manager.garbage_collect() == [source["else"].hash]
    assert manager.restore_snapshot().ok


def test_nodes_of_graphs_that_were_never_stored_are_missing(stored: Stored) -> None:
    stored.manager(stored.graph({"raw": b"1"}, name="source")).create_snapshot()
    user = MetadataGraph("user")
    user.add(Node(id="x", deps=("graph:source#raw", "graph:source#ghost", "graph:nowhere#n")))
    with pytest.raises(MissingDependency) as raised:
        stored.manager(user).create_snapshot()
    assert set(raised.value.missing) == {"graph:source#ghost", "graph:nowhere#n"}


def test_a_cycle_through_several_graphs_is_refused_before_it_is_stored(stored: Stored) -> None:
    source = stored.graph({"raw": b"1"}, name="source")
    manager = stored.manager(source)
    manager.create_snapshot()
    user = MetadataGraph("user")
    user.add(made("x", stored.values.store(b"x"), "graph:source#raw"))
    stored.manager(user).create_snapshot()
    source.add(made("on", stored.values.store(b"on"), "graph:user#x"))
    manager.create_snapshot()  # there and back again is no cycle
    source.replace(source["raw"].changed(deps=("graph:user#x",)))
    with pytest.raises(CycleFound) as raised:
        manager.create_snapshot()
    assert {"raw", "graph:user#x"} <= set(raised.value.cause.split(" → "))
    assert len(manager.list_snapshots()) == 2


def _users_and_a_newer_source_that_depends_back(stored: Stored) -> tuple[str, str, str]:
    """Ids of a snapshot of `user`, of the deleted one of `source` that it refers to, and of one in its place.

    In the first user/x is made from source/raw; in the newer one source/raw is made from user/x.
    """
    source = stored.graph({"raw": b"1"}, name="source")
    before = stored.manager(source).create_snapshot()
    user = stored.graph({"apart": b"2"}, name="user")
    x = made("x", stored.values.store(b"x"), "graph:source#raw")
    user.add(x.model_copy(update={"metadata": _capable("x")}))
    pinned = stored.manager(user).create_snapshot()
    user.replace(user["x"].changed(deps=()))
    stored.clock.advance(1)  # of two at the same time any may be the newer one
    stored.manager(user).create_snapshot()
    assert stored.manager(source).delete_snapshot(before.id)
    source.replace(source["raw"].changed(deps=("graph:user#x",)))
    stored.clock.advance(1)
    return pinned.id, before.id, stored.manager(source).create_snapshot().id


def test_a_newer_snapshot_of_another_graph_may_depend_back_where_it_is_not_needed(stored: Stored) -> None:
    pinned, _, _ = _users_and_a_newer_source_that_depends_back(stored)
    manager = stored.manager()
    assert manager.restore_snapshot(pinned).counts == {"reused": 2}
    assert manager.restore_snapshot(pinned, RegenerationPolicy(strategy="selective", nodes=("apart",))).ok


def test_a_newer_snapshot_of_another_graph_that_depends_back_is_told_where_it_is_needed(stored: Stored) -> None:
    pinned, deleted, newer = _users_and_a_newer_source_that_depends_back(stored)
    manager = stored.manager()
    graph = manager.get_snapshot(pinned).graph
    for node in graph:
        stored.values.delete(node.hash or "", force=True)
    recomputers = Recomputers()

    @recomputers.recomputes("x")
    def x(node: Node, inputs: Inputs) -> bytes:
        raise AssertionError

    report = manager.restore_snapshot(pinned, means=RestoreMeans(recomputers=recomputers))
    told = {node.id: (node.action, node.reason, node.blame) for node in report.nodes}
    action, reason, blame = told["x"]
    assert (action, blame) == ("blocked", "graph:source#raw")
    for named in (deleted, newer, "graph source", "graph user", "restore a newer snapshot"):
        assert named in reason
    assert "not at hand" not in reason
    alone = RegenerationPolicy(strategy="selective", nodes=("apart",))
    assert manager.restore_snapshot(pinned, alone).problems[0].id == "apart"  # nobody makes that, which is no cycle


def test_a_third_graph_can_be_stored_whose_sources_came_to_depend_on_each_other(stored: Stored) -> None:
    pinned, _, _ = _users_and_a_newer_source_that_depends_back(stored)
    for shot in stored.manager(MetadataGraph("user")).list_snapshots():
        if shot.id != pinned:
            stored.manager().delete_snapshot(shot.id)
    third = stored.graph({"y": b"y"}, name="third", deps=("graph:user#x",))
    shot = stored.manager(third).create_snapshot()
    assert shot.requires == {"user": pinned}
    assert stored.manager(third).restore_snapshot().counts == {"reused": 1}


def test_a_node_that_depends_on_itself_by_the_name_of_its_graph_is_refused(stored: Stored) -> None:
    graph = MetadataGraph("own")
    graph.add(Node(id="x", deps=("graph:own#x",)))
    with pytest.raises(CycleFound):
        stored.manager(graph).create_snapshot()
