"""Graphs as JSON documents, JSON lines and graphs of networkx come back as they were; what is no graph is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import DuplicateNode, GraphError, InvalidDocument, InvalidNode, InvalidRequest, MissingDependency
from backstay.graph import documents
from backstay.graph.documents import (
    read_document,
    read_graph,
    read_head,
    read_nodes,
    write_document,
    write_head,
    write_nodes,
)
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from backstay.graph.networkx_graphs import from_networkx, to_networkx
from tests.graph.random_graphs import WHEN, graphs


def small() -> MetadataGraph:
    graph = MetadataGraph("etl", timestamp=WHEN)
    graph.add(Node(id="b", deps=("a", "graph:other#x"), agent_id="é"))
    graph.add(Node(id="a", status="failed"))
    return graph


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.property
@given(graphs(), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_read_and_written_the_same(graph: MetadataGraph, size: int) -> None:
    lines = b"".join(write_nodes(graph))
    again = read_graph(write_head(graph), pieces(lines, size))
    assert again == graph
    assert [node.id for node in again] == sorted(graph.nodes)
    assert (write_head(again), b"".join(write_nodes(again))) == (write_head(graph), lines)
    document = b"".join(write_document(graph))
    assert read_document(document) == graph
    assert read_document(document.decode()) == graph
    assert b"".join(write_document(again)) == document
    assert len(json.loads(document)["nodes"]) == len(graph)


@pytest.mark.property
@given(graphs())
@settings(max_examples=40, deadline=None)
def test_a_graph_comes_back_from_networkx(graph: MetadataGraph) -> None:
    made = to_networkx(graph)
    assert nx.is_directed_acyclic_graph(made)
    assert set(made.edges) == set(graph.edges)
    assert from_networkx(made) == graph


def test_lines_are_by_id_and_leave_out_what_is_as_usual() -> None:
    assert b"".join(write_nodes(small())).decode() == (
        '{"id":"a","status":"failed"}\n{"id":"b","deps":["a","graph:other#x"],"agent_id":"é"}\n'
    )


def test_a_document_may_be_written_by_hand() -> None:
    graph = read_document('{"nodes": [{"id": "b", "deps": ["a"], "agentId": "g"}, {"id": "a"}]}')
    assert (graph.name, len(graph), graph["b"].agent_id) == ("default", 2, "g")


@pytest.mark.parametrize(
    ("document", "error", "told"),
    [
        ("", InvalidDocument, "JSON"),
        ("[]", InvalidDocument, "object"),
        ('{"nodes": [{"id": "a", "deps": ["b"], "deps": []}, {"id": "b"}]}', InvalidDocument, "'deps' stands twice"),
        ("{}", InvalidDocument, "nodes: Field required"),
        ('{"nodes": [{"id": "a"}, {"id": "a"}]}', DuplicateNode, "node a"),
        ('{"nodes": [{"id": "../a"}]}', InvalidDocument, r"nodes\.0\.id"),
        ('{"nodes": [{"id": "a", "hsh": ""}]}', InvalidDocument, r"nodes\.0\.hsh: Extra"),
        ('{"nodes": [], "edges": []}', InvalidDocument, "edges: Extra"),
        ('{"nodes": [], "name": "a/b"}', InvalidDocument, "name"),
        ('{"nodes": [], "node_count": 1}', InvalidDocument, "0 nodes"),
        ('{"nodes": [], "format": "backstay.graph/2"}', InvalidDocument, "format"),
        ('{"nodes": [], "timestamp": "2026-01-01"}', InvalidDocument, "timestamp"),
        ('{"nodes": [{"id": "\\ud800"}]}', InvalidDocument, "hex escape"),
        ('{"nodes": [{"id": "a", "metadata": {"computation_time": NaN}}]}', InvalidDocument, "finite"),
        ('{"nodes": [{"id": "a", "metadata": {"size": 1' + "0" * 5000 + "}}]}", InvalidDocument, "number out of range"),
        ('{"nodes": ' + "[" * 100_000, InvalidDocument, "recursion"),
    ],
)
def test_documents_that_are_refused(document: str, error: type[GraphError], told: str) -> None:
    with pytest.raises(error, match=told) as caught:
        read_document(document)
    assert len(str(caught.value)) < 1000


def test_a_refused_line_is_told_with_its_number_and_node() -> None:
    with pytest.raises(InvalidNode, match="line 2: node b is not valid: status: ") as caught:
        list(read_nodes([b'{"id":"a"}\n{"id":"b",', b'"status":"x"}\n']))
    assert caught.value.hint
    for line in (b'{"id":"a"', b"\n", b'"a"', b"\xff", b'{"id":"a"}{"id":"b"}'):
        with pytest.raises(InvalidNode, match="line 1: "):
            list(read_nodes([line]))


def test_lines_that_lost_their_end_are_noticed() -> None:
    graph = small()
    lines = list(write_nodes(graph))
    with pytest.raises(InvalidDocument, match="1 node and says that it has 2"):
        read_graph(write_head(graph), lines[:1])
    with pytest.raises(DuplicateNode):
        read_graph(write_head(graph), [*lines, lines[0]])


def test_a_line_too_long_is_refused_before_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_LINE", 1000)
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield b"x" * 100

    with pytest.raises(InvalidDocument, match="too large"):
        list(read_nodes(endless()))
    assert len(taken) == 11
    graph = MetadataGraph()
    graph.add(Node(id="big", agent_id="x" * 1000))
    with pytest.raises(InvalidNode, match="node big is too large"):
        list(write_nodes(graph))


def test_a_head_too_long_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="too large"):
        read_head(b" " * (1 << 20) + write_head(small()))


def test_edges_of_networkx_decide_what_depends_on_what() -> None:
    made = to_networkx(small())
    made.remove_edge("a", "b")
    made.add_edge("c", "b")
    graph = from_networkx(made)
    assert graph["b"].deps == ("graph:other#x", "c")
    assert graph["c"] == Node(id="c")


def test_a_graph_of_networkx_needs_nothing_of_ours() -> None:
    graph = from_networkx(nx.DiGraph([("a", "b"), ("b", "c")], title="not ours"))
    assert graph.deps == {"a": (), "b": ("a",), "c": ("b",)}


def test_graphs_of_networkx_that_are_refused() -> None:
    made: Any
    for made in (nx.Graph([("a", "b")]), nx.MultiDiGraph([("a", "b"), ("a", "b")]), {"a": "b"}):
        with pytest.raises(InvalidDocument, match="DiGraph"):
            from_networkx(made)
    for made in (nx.DiGraph([(1, 2)]), nx.DiGraph([("../a", "b")])):
        with pytest.raises(InvalidNode, match="id: "):
            from_networkx(made)
    made = nx.DiGraph()
    made.add_node("a", colour="red")
    with pytest.raises(InvalidNode, match="colour"):
        from_networkx(made)


def test_networkx_gets_no_nodes_that_the_graph_has_not() -> None:
    graph = MetadataGraph()
    graph.add(Node(id="a", deps=("ghost",)))
    with pytest.raises(MissingDependency, match="ghost"):
        to_networkx(graph)


def test_without_networkx_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(InvalidRequest) as caught:
        to_networkx(small())
    assert "backstay[graph]" in caught.value.hint
