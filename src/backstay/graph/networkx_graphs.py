"""Graphs as those of networkx, and back. networkx is the extra `graph`, and imported only here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from backstay.core.clock import Clock
from backstay.errors import InvalidDocument, InvalidRequest
from backstay.graph.metadata_graph import GraphHead, MetadataGraph
from backstay.graph.model import Node, is_foreign

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(graph: MetadataGraph) -> nx.DiGraph:
    """A DiGraph whose edges lead from each node to those that depend on it.

    Its nodes are ids; their attributes are the fields of the model as JSON has them, without those that have their
    defaults. Raises MissingDependency, as edges need both ends, or InvalidRequest where networkx is not installed.
    """
    graph.check_deps()
    made = _directed()(**graph.head.model_dump(mode="json"))
    for node in graph:
        made.add_node(node.id, **node.model_dump(mode="json", exclude={"id"}, exclude_defaults=True))
    made.add_edges_from(graph.edges)
    return made


def from_networkx(given: nx.DiGraph, *, clock: Clock | None = None) -> MetadataGraph:
    """The graph that a DiGraph describes by the attributes that `to_networkx` writes, all of which may be missing.

    Its edges decide what a node depends on; `deps` only says in which order, and names nodes of other graphs.
    Raises InvalidDocument for a graph that is undirected or has parallel edges, InvalidNode for its attributes.
    """
    if not isinstance(given, _directed()) or given.is_multigraph():
        raise InvalidDocument("this is no graph of dependencies", cause="it must be a networkx.DiGraph")
    said = {key: value for key, value in given.graph.items() if key in GraphHead.model_fields}
    now = MetadataGraph(clock=clock).head.model_dump()
    graph = MetadataGraph.of(GraphHead.parse(now | said))
    for name, attributes in given.nodes(data=True):
        deps = _deps(given.predecessors(name), attributes.get("deps", ()))
        graph.add(Node.parse(attributes | {"id": name, "deps": deps}))
    return graph


def _deps(edges: Iterable[object], said: object) -> list[object]:
    """What the edges say, in the order in which `deps` has it, and the nodes of other graphs."""
    before = dict.fromkeys(edges)
    listed = said if isinstance(said, list | tuple) else ()
    kept = [dep for dep in listed if isinstance(dep, str) and (dep in before or is_foreign(dep))]
    for dep in kept:
        before.pop(dep, None)
    return [*kept, *before]


def _directed() -> type[nx.DiGraph]:
    try:
        from networkx import DiGraph
    except ImportError as error:
        raise InvalidRequest(
            "graphs of networkx need networkx", cause=str(error), hint="pip install 'backstay[graph]'"
        ) from error
    found: type[nx.DiGraph] = DiGraph
    return found
