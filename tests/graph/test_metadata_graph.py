"""Building a graph, and what it says of itself."""

from __future__ import annotations

import pytest

from backstay.errors import (
    CycleFound,
    DuplicateNode,
    GraphError,
    InvalidNode,
    MissingDependency,
    OutputConflict,
    UnknownNode,
)
from backstay.graph.metadata_graph import Edge, MetadataGraph
from backstay.graph.model import Node, NodeMetadata, Ref
from tests.graph.random_graphs import WHEN


def graph_of(**deps: str) -> MetadataGraph:
    """Nodes and what each depends on, such as `b="a"`."""
    graph = MetadataGraph(timestamp=WHEN)
    for node, needs in deps.items():
        graph.add(Node(id=node, deps=tuple(needs.split())))
    return graph


def placed(**paths: str) -> MetadataGraph:
    """Nodes and where each has its output."""
    graph = MetadataGraph(timestamp=WHEN)
    for node, path in paths.items():
        graph.add(Node(id=node, metadata=NodeMetadata(path=path)))
    return graph


def test_nodes_come_in_any_order() -> None:
    graph = graph_of(c="a b", b="a", a="")
    graph.check()
    assert ([node.id for node in graph], len(graph), "a" in graph, "z" in graph) == (["c", "b", "a"], 3, True, False)
    assert graph["c"].deps == ("a", "b")
    assert set(graph.edges) == {Edge("a", "c"), Edge("b", "c"), Edge("a", "b")}
    assert (graph.dependants("a"), graph.dependants("c")) == (("c", "b"), ())


def test_an_empty_graph_is_a_good_graph() -> None:
    graph = MetadataGraph()
    graph.check()
    assert graph
    assert len(graph) == 0


def test_a_second_node_of_one_id_is_refused() -> None:
    graph = graph_of(a="")
    with pytest.raises(DuplicateNode, match="node a "):
        graph.add(Node(id="a", agent_id="other"))
    assert graph["a"].agent_id == ""


def test_a_node_that_is_not_there_is_told() -> None:
    for ask in (lambda: graph_of()["x"], lambda: graph_of().remove("x"), lambda: graph_of().replace(Node(id="x"))):
        with pytest.raises(UnknownNode, match="'x'"):
            ask()
    assert graph_of().get("x") is None


def test_replaced_and_removed_nodes_take_their_edges_along() -> None:
    graph = graph_of(a="", b="a", c="b")
    graph.replace(Node(id="c", deps=("a",)))
    assert (graph.dependants("a"), graph.dependants("b")) == (("b", "c"), ())
    graph.remove("b")
    graph.check()
    assert graph == graph_of(a="", c="a")
    graph.remove("a")
    with pytest.raises(MissingDependency):
        graph.check()


def test_a_missing_dependency_does_not_stay_after_its_last_dependant() -> None:
    graph = graph_of(a="ghost")
    graph.replace(Node(id="a"))
    graph.check()


def test_all_missing_dependencies_are_told_with_who_needs_them() -> None:
    with pytest.raises(MissingDependency) as caught:
        graph_of(a="ghost b", b="", c="ghost spirit").check()
    assert caught.value.missing == {"ghost": ("a", "c"), "spirit": ("c",)}
    assert "ghost (needed by a, c); spirit (needed by c)" in str(caught.value)


def test_a_great_many_missing_dependencies_are_still_told_briefly() -> None:
    graph = graph_of(**{f"n{i}": f"ghost{i} ghost" for i in range(5000)})
    with pytest.raises(MissingDependency) as caught:
        graph.check()
    assert len(caught.value.missing) == 5001
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    ("deps", "cycle"),
    [
        ({"a": "a"}, "a → a"),
        ({"b": "a", "a": "b", "c": "a"}, "a → b → a"),
        ({"z": "y", "y": "x", "x": "z", "d": "z", "e": ""}, "x → z → y → x"),
    ],
)
def test_a_cycle_is_named_whole(deps: dict[str, str], cycle: str) -> None:
    with pytest.raises(CycleFound) as caught:
        graph_of(**deps).check()
    assert str(caught.value) == f"the graph has a cycle: {cycle}"
    assert (*caught.value.cycle, caught.value.cycle[0]) == tuple(cycle.split(" → "))


def test_a_long_cycle_is_found_and_kept_whole() -> None:
    graph = graph_of(**{f"n{i}": f"n{(i + 1) % 50_000}" for i in range(50_000)})
    with pytest.raises(CycleFound) as caught:
        graph.check()
    assert len(caught.value.cycle) == 50_000
    assert len(str(caught.value)) < 2000


def test_nodes_of_other_graphs_are_kept_apart() -> None:
    graph = MetadataGraph()
    graph.add(Node(id="a", deps=("graph:other#x", "b")))
    graph.add(Node(id="b"))
    graph.check()
    assert graph.deps == {"a": ("b",), "b": ()}
    assert graph.foreign == {"a": (Ref("other", "x"),)}
    graph.replace(Node(id="a"))
    assert graph.foreign == {}


@pytest.mark.parametrize("paths", [{"a": "x/y", "b": "x/y"}, {"a": "x/y/z", "b": "x"}, {"a": "x", "b": "x/y"}])
def test_two_outputs_in_one_place_are_refused(paths: dict[str, str]) -> None:
    with pytest.raises(OutputConflict, match="path x"):
        placed(**paths).check()


def test_outputs_beside_each_other_are_good() -> None:
    placed(a="x/y", b="x/z", c="xx").check()


def test_graphs_are_equal_in_whatever_order_their_nodes_came() -> None:
    assert graph_of(a="", b="a") == graph_of(b="a", a="")
    assert graph_of(a="") != graph_of(b="")
    assert graph_of() != MetadataGraph(version="2", timestamp=WHEN)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "n" * 65, "a\n"])
def test_names_of_graphs_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidNode, match="a graph's name"):
        MetadataGraph(name)


def test_every_error_says_what_to_do() -> None:
    errors: list[GraphError] = [
        DuplicateNode("a"),
        UnknownNode("a", graph="g"),
        MissingDependency({"a": ("b",)}),
        CycleFound(("a",)),
        OutputConflict("p", ("a", "b")),
    ]
    for error in errors:
        assert error.title
        assert error.hint
