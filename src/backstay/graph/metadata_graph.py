"""A graph of computed values, as programs build it and as snapshots keep it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field, StrictBool

from backstay.core.arguments import checks_arguments
from backstay.core.clock import Clock, SystemClock
from backstay.core.memory import collector_at_rest
from backstay.errors import CycleFound, DuplicateNode, MissingDependency, OutputConflict, UnknownNode
from backstay.graph.model import GraphName, Line, Moment, Node, Ref, is_foreign
from backstay.graph.ordering import find_cycle, is_ordered
from backstay.graph.validated import Validated

Validators = Annotated[tuple[Line, ...], Field(max_length=1000)]


class Edge(NamedTuple):
    """`target` depends on `source`."""

    source: str
    target: str


class GraphHead(Validated):
    """What is said of a graph as a whole."""

    kind: ClassVar[str] = "graph"

    name: GraphName = "default"
    version: Line = "1"
    timestamp: Moment
    consensus: StrictBool = False
    validated_by: Validators = ()


@checks_arguments
class MetadataGraph:
    """Nodes by their ids. Edges are not kept apart: they are what the nodes depend on.

    While it is built it may lack nodes that others depend on, or have cycles; `check` tells. Not for several threads
    at once. Raises InvalidNode for a name or version that cannot be.
    """

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __init__(
        self,
        name: str = "default",
        version: str = "1",
        *,
        timestamp: datetime | None = None,
        consensus: bool = False,
        validated_by: Iterable[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self.head = GraphHead(
            name=name,
            version=version,
            timestamp=timestamp or (clock or SystemClock()).now(),
            consensus=consensus,
            validated_by=tuple(validated_by),
        )
        self._nodes: dict[str, Node] = {}
        self._needs: dict[str, tuple[str, ...]] = {}  # only nodes of this graph
        self._foreign: dict[str, tuple[str, ...]] = {}  # only of nodes that have some
        self._paths: dict[str, str] = {}  # of outputs that are files too
        self._dependants: dict[str, dict[str, None]] | None = None  # made when somebody asks, and kept up from then on

    @classmethod
    def of(cls, head: GraphHead, nodes: Iterable[Node] = ()) -> MetadataGraph:
        """The graph that has this head and these nodes; raises DuplicateNode."""
        graph = cls(timestamp=head.timestamp)
        graph.head = head
        for node in nodes:
            graph.add(node)
        return graph

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def version(self) -> str:
        return self.head.version

    @property
    def timestamp(self) -> datetime:
        return self.head.timestamp

    @property
    def consensus(self) -> bool:
        return self.head.consensus

    @property
    def validated_by(self) -> tuple[str, ...]:
        return self.head.validated_by

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes by id, in the order in which they came."""
        return MappingProxyType(self._nodes)

    @property
    def deps(self) -> Mapping[str, tuple[str, ...]]:
        """For each node the nodes of this graph that it depends on: what `ordering` takes."""
        return MappingProxyType(self._needs)

    @property
    def edges(self) -> Iterator[Edge]:
        """One for each dependency within the graph, grouped by target."""
        return (Edge(need, node) for node, needs in self._needs.items() for need in needs)

    @property
    def foreign(self) -> Mapping[str, tuple[Ref, ...]]:
        """For each node that depends on nodes of other graphs, which ones."""
        return {
            node: tuple(ref for dep in deps if (ref := Ref.parse(dep)) is not None)
            for node, deps in self._foreign.items()
        }

    @property
    def has_files(self) -> bool:
        """Whether any node has its output as a file too."""
        return bool(self._paths)

    def add(self, node: Node) -> None:
        """Take in a new node, also before those that it depends on; raises DuplicateNode."""
        if node.id in self._nodes:
            raise DuplicateNode(node.id)
        self._keep(node)

    def replace(self, node: Node) -> None:
        """Put a node in the place of the one that has its id; raises UnknownNode."""
        self._unlink(self[node.id])
        self._keep(node)

    def remove(self, node: str) -> None:
        """Forget a node. Others may still depend on it, which `check` then tells. Raises UnknownNode."""
        self._unlink(self[node])
        del self._nodes[node], self._needs[node]

    def get(self, node: str) -> Node | None:
        """The node of this id, if there is one."""
        return self._nodes.get(node)

    def dependants(self, node: str) -> tuple[str, ...]:
        """The nodes that depend on this one directly; also of one that is missing."""
        if self._dependants is None:
            self._dependants = {}
            for dependant in self._needs:
                self._note(self._dependants, dependant)
        return tuple(self._dependants.get(node, ()))

    def check(self) -> None:
        """Make sure that every node can be made after its dependencies, and has its output to itself.

        Raises MissingDependency with all that are missing and who needs them, CycleFound with one whole cycle, or
        OutputConflict. Dependencies on other graphs are not looked up.
        """
        with collector_at_rest():
            if not is_ordered(self._needs):
                self.check_deps()
                if cycle := find_cycle(self._needs):
                    raise CycleFound(cycle)
        self._check_paths()

    def check_deps(self) -> None:
        """Make sure that nothing is missing that nodes of this graph depend on; raises MissingDependency."""
        known, missing = set(self._nodes), dict[str, list[str]]()
        for node, needs in self._needs.items():
            if not known.issuperset(needs):
                for need in (need for need in needs if need not in known):
                    missing.setdefault(need, []).append(node)
        if missing:
            raise MissingDependency({need: tuple(by) for need, by in missing.items()})

    def __getitem__(self, node: str) -> Node:
        """The node of this id; raises UnknownNode."""
        try:
            return self._nodes[node]
        except KeyError:
            raise UnknownNode(node, graph=self.name) from None

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __bool__(self) -> bool:
        return True  # an empty graph is a graph

    def __eq__(self, other: object) -> bool:
        """Whether head and nodes are the same, in whatever order they came."""
        if not isinstance(other, MetadataGraph):
            return NotImplemented
        return self.head == other.head and self._nodes == other._nodes

    def __repr__(self) -> str:
        return f"MetadataGraph({self.name!r}, version={self.version!r}, {len(self)} nodes)"

    def _keep(self, node: Node) -> None:
        self._nodes[node.id] = node.compacted(metadata=node.metadata.compacted())  # there may be very many
        if node.metadata.path is not None:
            self._paths[node.id] = node.metadata.path
        self._link(node)

    def _link(self, node: Node) -> None:
        needs = node.deps
        if any(map(is_foreign, needs)):
            self._foreign[node.id] = tuple(dep for dep in needs if is_foreign(dep))
            needs = tuple(dep for dep in needs if not is_foreign(dep))
        self._needs[node.id] = needs
        if self._dependants is not None:
            self._note(self._dependants, node.id)

    def _note(self, dependants: dict[str, dict[str, None]], node: str) -> None:
        for need in self._needs[node]:
            dependants.setdefault(need, {})[node] = None

    def _unlink(self, node: Node) -> None:
        self._foreign.pop(node.id, None)
        self._paths.pop(node.id, None)
        if self._dependants is None:
            return
        for need in self._needs[node.id]:
            others = self._dependants[need]
            del others[node.id]
            if not others:
                del self._dependants[need]

    def _check_paths(self) -> None:
        """No output may be a file that is another's too, or a directory of another's."""
        owners: dict[str, str] = {}
        for node, path in self._paths.items():
            if owners.setdefault(path, node) != node:
                raise OutputConflict(path, (owners[path], node))
        for path, owner in owners.items():
            at = path.find("/")
            while at >= 0:
                if (other := owners.get(path[:at])) is not None:
                    raise OutputConflict(path[:at], (other, owner))
                at = path.find("/", at + 1)
