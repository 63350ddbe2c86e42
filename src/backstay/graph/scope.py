"""The nodes that a restore may come to: those of one graph, and those of other graphs that they lead to.

Nodes of the graph itself go by their ids, others by `graph:NAME#ID`, wherever that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backstay.core.memory import collector_at_rest
from backstay.errors import UnknownNode
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, Ref, is_foreign
from backstay.graph.ordering import order


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Nodes by number, each after all that it depends on; `deps` and `dependants` are numbers too.

    `names` has the deps of a node as they are written in it, in the order of its `deps`. `absent` are those that
    lead to graphs or nodes that are not at hand. Numbers in `own` are of nodes of the graph itself.
    """

    keys: tuple[str, ...]
    nodes: list[Node]  # a node that comes back different takes the place of what it was
    deps: tuple[tuple[int, ...], ...]
    names: tuple[tuple[str, ...], ...]
    dependants: tuple[list[int], ...]
    absent: Mapping[int, tuple[str, ...]]
    own: tuple[int, ...]
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, graph: MetadataGraph, others: Mapping[str, MetadataGraph] | None = None) -> Scope:
        """Raises MissingDependency, OutputConflict, and CycleFound, also for a cycle through several graphs."""
        with collector_at_rest():
            return cls._of(graph, others)

    @classmethod
    def _of(cls, graph: MetadataGraph, others: Mapping[str, MetadataGraph] | None) -> Scope:
        nodes: Mapping[str, Node] = graph.nodes
        deps: dict[str, tuple[str, ...]] = dict(graph.deps)
        names: dict[str, tuple[str, ...]] = {}
        absent: dict[str, tuple[str, ...]] = {}
        if any(node.metadata.path is not None for node in graph):
            graph.check()
        if graph.foreign:
            nodes = dict(nodes)
            _follow(graph, {**(others or {}), graph.name: graph}, nodes, deps, names, absent)
        try:
            keys, links = _numbered(deps)
        except KeyError:  # a node that is not there: the graph has better words for it
            graph.check()
            raise
        numbers = {key: number for number, key in enumerate(keys)}
        dependants: tuple[list[int], ...] = tuple([] for _ in keys)
        for number, needs in enumerate(links):
            for need in needs:
                dependants[need].append(number)
        return cls(
            keys=tuple(keys),
            nodes=list(map(nodes.__getitem__, keys)),
            deps=tuple(links),
            names=tuple(names.get(key) or deps[key] for key in keys) if names else tuple(map(deps.__getitem__, keys)),
            dependants=dependants,
            absent={numbers[key]: missing for key, missing in absent.items()},
            own=tuple(range(len(keys)) if len(keys) == len(graph) else map(numbers.__getitem__, graph.nodes)),
            numbers=numbers,
        )

    def number(self, key: str, *, graph: str) -> int:
        """The number of a node; raises UnknownNode."""
        ref = Ref.parse(key)
        plain = key if ref is None or ref.graph != graph else ref.node
        if plain not in self.numbers:
            raise UnknownNode(key, graph=graph)
        return self.numbers[plain]


def _numbered(deps: Mapping[str, tuple[str, ...]]) -> tuple[list[str], list[tuple[int, ...]]]:
    """The nodes in an order in which each can be made, and their dependencies by place; raises CycleFound, KeyError.

    Most graphs come in such an order already: nothing but looking is needed for these.
    """
    places = {key: place for place, key in enumerate(deps)}
    links = [tuple([places[need] for need in needs]) for needs in deps.values()]
    keys = list(deps)
    if all(not needs or max(needs) < place for place, needs in enumerate(links)):
        return keys, links
    keys = order(deps)
    places = {key: place for place, key in enumerate(keys)}
    return keys, [tuple([places[need] for need in deps[key]]) for key in keys]


def _follow(
    graph: MetadataGraph,
    graphs: Mapping[str, MetadataGraph],
    nodes: dict[str, Node],
    deps: dict[str, tuple[str, ...]],
    names: dict[str, tuple[str, ...]],
    absent: dict[str, tuple[str, ...]],
) -> None:
    """Add all nodes of other graphs that the nodes of `graph` lead to."""
    front = [(node.id, node, graph.name) for node in graph if any(map(is_foreign, node.deps))]
    while front:
        key, node, home = front.pop()
        found: dict[str, str] = {}
        missing = []
        for dep in node.deps:
            ref = Ref.parse(dep) or Ref(home, dep)
            other = graphs[ref.graph].get(ref.node) if ref.graph in graphs else None
            if other is None:
                missing.append(dep)
                continue
            needed = ref.node if ref.graph == graph.name else str(ref)
            found[dep] = needed
            if needed not in nodes:
                nodes[needed] = other
                front.append((needed, other, ref.graph))
        deps[key] = tuple(found.values())
        names[key] = tuple(found)
        if missing:
            absent[key] = tuple(missing)
