"""What `verify` finds of graphs, and how two of them differ."""

from __future__ import annotations

from backstay.graph.difference import difference
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.repository.format import graph_deletion_name
from tests.graph.stored import Stored, made


def test_whole_snapshots_have_no_findings() -> None:
    stored = Stored()
    manager = stored.manager(stored.graph({"a": b"1", "b": b"2"}))
    manager.create_snapshot()
    manager.create_snapshot()
    found = manager.verify(read_data=True)
    assert (found.ok, found.snapshots, found.values, found.values_read) == (True, 2, 2, 2)


def test_lost_values_and_damaged_marks_are_found() -> None:
    stored = Stored()
    graph = stored.graph({"a": b"1", "b": b"2"})
    manager = stored.manager(graph)
    shot = manager.create_snapshot()
    stored.values.delete(graph["a"].hash or "", force=True)
    stored.store.store(graph_deletion_name(shot.id), b"forged")
    found = manager.verify()
    assert {one.subject for one in found.findings} == {graph["a"].hash, graph_deletion_name(shot.id)}
    assert not found.ok
    assert [told.id for told in manager.list_snapshots()] == [shot.id], "a forged mark deletes nothing"
    assert manager.garbage_collect() == []


def test_a_lost_pack_is_told_by_snapshot() -> None:
    stored = Stored()
    manager = stored.manager(stored.graph({"a": b"1"}))
    shot = manager.create_snapshot()
    for info in list(stored.store.list("packs/")):
        stored.store.delete(info.name)
    stored.reopen()
    found = stored.manager().verify()
    assert [one.subject for one in found.findings] == [f"snapshot {shot.id}"]


def test_graphs_differ_by_nodes_and_fields() -> None:
    before, after = MetadataGraph(), MetadataGraph()
    for graph in (before, after):
        graph.add(made("same", "0" * 64))
    before.add(made("old", "1" * 64))
    after.add(made("new", "1" * 64))
    before.add(Node(id="x", status="pending", metadata=NodeMetadata(path="a")))
    after.add(Node(id="x", status="failed", metadata=NodeMetadata(path="b")))
    found = difference(before, after)
    assert [(node.id, node.change, node.fields) for node in found.nodes] == [
        ("new", "added", ()),
        ("old", "removed", ()),
        ("x", "changed", ("status", "metadata.path")),
    ]
    assert found.unchanged == 1
    assert difference(after, after).nodes == ()
