"""The nodes that a restore may come to: those of one graph, and those of other graphs that they lead to.

Nodes of the graph itself go by their ids, others by `graph:NAME#ID`, wherever that is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from backstay.core.memory import collector_at_rest
from backstay.errors import CycleFound, UnknownNode
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, Ref, is_foreign
from backstay.graph.numbering import Links, generations, numbered
from backstay.graph.ordering import find_cycle
from backstay.graph.standins import Absent, Standin, without_back_references


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Nodes by number, each after all that it depends on; `deps` and `dependants` are numbers too.

    `names` has the deps of a node as they are written in it, in the order of its `deps`. `absent` is the first of a
    node's deps that lead to graphs or nodes that are not at hand. Numbers in `own` are of nodes of the graph itself.
    """

    keys: Sequence[str]
    nodes: list[Node]  # a node that comes back different takes the place of what it was
    deps: Links
    names: Sequence[tuple[str, ...]]
    absent: Mapping[int, Absent]
    own: Sequence[int]

    @classmethod
    def of(
        cls,
        graph: MetadataGraph,
        others: Mapping[str, MetadataGraph] | None = None,
        standins: Mapping[str, Standin] | None = None,
    ) -> Scope:
        """`standins` are those of the others that are not as the graph was made with them.

        Raises MissingDependency, OutputConflict, and CycleFound, also for a cycle through several graphs.
        """
        with collector_at_rest():
            return cls._of(graph, others or {}, standins or {})

    @classmethod
    def _of(cls, graph: MetadataGraph, others: Mapping[str, MetadataGraph], standins: Mapping[str, Standin]) -> Scope:
        if graph.has_files:
            graph.check()
        found = _Found(nodes=graph.nodes, deps=graph.deps)
        if graph.foreign:
            found = _followed(graph, {**others, graph.name: graph}, standins)
        try:
            keys, links = _in_order(found.deps)
        except KeyError:  # a node that is not there: the graph has better words for it
            graph.check()
            raise
        names, deps, absent = found.names, found.deps, found.absent
        return cls(
            keys=keys,
            nodes=list(map(found.nodes.__getitem__, keys)),
            deps=links,
            names=[names[key] if key in names else deps[key] for key in keys],
            absent={number: absent[key] for number, key in enumerate(keys) if key in absent} if absent else {},
            own=range(len(keys))
            if len(keys) == len(graph)
            else [number for number, key in enumerate(keys) if key in graph],
        )

    def placed(self, number: int, node: Node | None = None) -> Node:
        """A node as the place of the outputs gets it: what other graphs made is in the repository alone.

        Their paths say where they lie in a directory of that graph, and may be those of other outputs here.
        """
        node = node or self.nodes[number]
        if node.metadata.path is None or not is_foreign(self.keys[number]):
            return node
        return node.model_copy(update={"metadata": node.metadata.model_copy(update={"path": None})})

    @cached_property
    def dependants(self) -> Links:
        """The nodes that depend on each; worked out when somebody asks, which few restores do."""
        return self.deps.reversed()

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {key: number for number, key in enumerate(self.keys)}

    def number(self, key: str, *, graph: str) -> int:
        """The number of a node; raises UnknownNode."""
        ref = Ref.parse(key)
        plain = key if ref is None or ref.graph != graph else ref.node
        if plain not in self._numbers:
            raise UnknownNode(key, graph=graph)
        return self._numbers[plain]


@dataclass(kw_only=True)
class _Found:
    """By key the nodes, the keys that each depends on, and, of those that lead to other graphs, what they are called
    there and what is not at hand."""

    nodes: Mapping[str, Node]
    deps: Mapping[str, tuple[str, ...]]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absent: dict[str, Absent] = field(default_factory=dict)


def _in_order(deps: Mapping[str, tuple[str, ...]]) -> tuple[list[str], Links]:
    """The nodes in an order in which each can be made, and their dependencies by place; raises CycleFound, KeyError.

    Graphs that come in such an order need only be looked at.
    """
    keys, links = list(deps), numbered(deps)
    if links.ascend:
        return keys, links
    order = [number for generation in generations(links, keys) for number in generation]
    if len(order) < len(keys):
        raise CycleFound(find_cycle(deps))
    return [keys[number] for number in order], links.arranged(order)


def _followed(graph: MetadataGraph, graphs: Mapping[str, MetadataGraph], standins: Mapping[str, Standin]) -> _Found:
    """All nodes of other graphs that the nodes of `graph` lead to, with its own."""
    nodes, deps = dict(graph.nodes), dict(graph.deps)
    names: dict[str, tuple[str, ...]] = {}
    absent: dict[str, Absent] = {}
    front = [(node.id, node, graph.name) for node in graph if any(map(is_foreign, node.deps))]
    while front:
        key, node, home = front.pop()
        found: dict[str, str] = {}
        for dep in node.deps:
            ref = Ref.parse(dep) or Ref(home, dep)
            other = graphs[ref.graph].get(ref.node) if ref.graph in graphs else None
            if other is None:
                absent.setdefault(key, Absent(dep, f"it is made from {dep}, which is not at hand"))
                continue
            needed = ref.node if ref.graph == graph.name else str(ref)
            found[dep] = needed
            if needed not in nodes:
                nodes[needed] = other
                front.append((needed, other, ref.graph))
        deps[key] = tuple(found.values())
        names[key] = tuple(found)
    if standins:
        absent = without_back_references(graph.name, deps, names, standins) | absent
    return _Found(nodes=nodes, deps=deps, names=names, absent=absent)
