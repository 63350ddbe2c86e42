"""`snapshots.json` of a `.backups` directory: a list of snapshots, each with its whole graph, names in camelCase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as model_dataclass
from pydantic_core import to_json

from backstay.core.memory import collector_at_rest
from backstay.errors import BackstayError, InvalidDocument
from backstay.graph.documents import MAX_NODES
from backstay.graph.metadata_graph import GraphHead, MetadataGraph, Validators
from backstay.graph.model import GraphName, Line, Moment, Node, NodeId, NodeMetadata, graph_name
from backstay.graph.strict_json import check_json
from backstay.graph.validated import Validated, mistakes

MAX_TAGS: Final = 1000

State: TypeAlias = Literal["pending", "accepted"]

# Fields that other readers of the layout do not know; they are written where they say something.
_OURS: Final = ("command", "path", "deterministic", "media_type", "size")
_DEFAULTS: Final = NodeMetadata()


@model_dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Edge:
    """There are more of these than nodes, so that they have no dictionary each, as other values do."""

    source: NodeId = Field(alias="from")
    target: NodeId = Field(alias="to")


class _Dag(Validated):
    kind: ClassVar[str] = "graph"

    name: GraphName = "default"
    timestamp: Moment
    version: Line = "1"
    nodes: Annotated[dict[NodeId, Node], Field(max_length=MAX_NODES)]
    edges: tuple[_Edge, ...] | None = None
    consensus: StrictBool = False
    validated_by: Validators = ()


class _Snapshot(Validated):
    refusal: ClassVar[type[BackstayError]] = InvalidDocument
    kind: ClassVar[str] = "snapshot"

    id: Annotated[StrictStr, AfterValidator(graph_name)]  # the same rule: it may become the name of a file
    description: StrictStr = ""
    tags: Annotated[tuple[Line, ...], Field(max_length=MAX_TAGS)] = ()
    timestamp: Moment
    state: State = "pending"
    dag: _Dag


_INDEX: Final = TypeAdapter(tuple[_Snapshot, ...])


@dataclass(frozen=True, kw_only=True)
class LayoutSnapshot:
    """A snapshot in this layout. `time` is when it was made; who validated it stands in its graph."""

    id: str
    time: datetime
    graph: MetadataGraph
    description: str = ""
    tags: tuple[str, ...] = ()
    state: State = "pending"


def read_index(document: bytes) -> tuple[LayoutSnapshot, ...]:
    """The snapshots of a `snapshots.json`, each with a graph that is whole and has no cycle.

    Raises InvalidDocument, MissingDependency, CycleFound or OutputConflict.
    """
    with collector_at_rest():
        check_json(document, "snapshots.json")
        try:
            read = _INDEX.validate_json(document)
        except ValidationError as error:
            raise InvalidDocument("snapshots.json is not valid", cause=mistakes(error)) from error
        snapshots = tuple(map(_snapshot, read))
    if len({snapshot.id for snapshot in snapshots}) < len(snapshots):
        raise InvalidDocument("snapshots.json is not valid", cause="two of its snapshots have one id")
    return snapshots


def write_index(snapshots: Iterable[LayoutSnapshot]) -> Iterator[bytes]:
    """A `snapshots.json` in pieces; raises what `read_index` would raise."""
    start = b"[\n"
    for snapshot in snapshots:
        yield start
        yield from _written(snapshot)
        start = b",\n"
    yield b"[]\n" if start == b"[\n" else b"\n]\n"


def _snapshot(read: _Snapshot) -> LayoutSnapshot:
    dag = read.dag
    for name, node in dag.nodes.items():
        if name != node.id:
            raise InvalidDocument(f"snapshot {read.id} is not valid", cause=f"node {node.id} stands under {name}")
    head = GraphHead.parse({name: getattr(dag, name) for name in GraphHead.model_fields})
    graph = MetadataGraph.of(head, dag.nodes.values())
    graph.check()
    if dag.edges is not None and {(edge.source, edge.target) for edge in dag.edges} != set(graph.edges):
        cause = "its edges are not what the deps of its nodes say"
        raise InvalidDocument(f"snapshot {read.id} is not valid", cause=cause)
    return LayoutSnapshot(
        id=read.id,
        time=read.timestamp,
        graph=graph,
        description=read.description,
        tags=read.tags,
        state=read.state,
    )


def _written(snapshot: LayoutSnapshot) -> Iterator[bytes]:
    graph = snapshot.graph
    graph.check()
    # The nodes are written one by one; all that is small is checked as a reader would.
    checked = _Snapshot.parse(
        {
            "id": snapshot.id,
            "description": snapshot.description,
            "tags": snapshot.tags,
            "timestamp": snapshot.time,
            "state": snapshot.state,
            "dag": graph.head.model_dump() | {"nodes": {}},
        }
    )
    yield checked.model_dump_json(by_alias=True, exclude={"dag"}).encode().removesuffix(b"}") + b',"dag":'
    head = checked.dag.model_dump_json(by_alias=True, exclude={"nodes", "edges"}).encode()
    yield head.removesuffix(b"}") + b',"nodes":{'
    comma = b"\n"
    for name in sorted(graph.nodes):
        yield comma + to_json(name) + b":" + _node(graph.nodes[name])
        comma = b",\n"
    yield b'\n},"edges":['
    comma = b"\n"
    for edge in sorted(graph.edges):
        yield comma + to_json({"from": edge.source, "to": edge.target})
        comma = b",\n"
    yield b"\n]}}"


def _node(node: Node) -> bytes:
    silent = {name for name in _OURS if getattr(node.metadata, name) == getattr(_DEFAULTS, name)}
    fields = node.model_dump(mode="json", by_alias=True, exclude={"metadata": silent})
    return to_json(fields | {"hash": node.hash or ""})  # other readers expect a text
