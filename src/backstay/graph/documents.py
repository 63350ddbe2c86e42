"""Graphs as JSON: one document for people and programs, or a head and one line for each node for large ones.

What is written is the same for the same graph: nodes by id, fields in the order of the model, those that have their
defaults left out, no spaces, UTF-8. What is read may be in any order. Edges are not written: they are the deps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StrictBool, ValidationError
from pydantic_core import from_json

from backstay.core.clock import Clock, SystemClock
from backstay.core.memory import collector_at_rest
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import BackstayError, InvalidDocument, InvalidNode
from backstay.graph.metadata_graph import GraphHead, MetadataGraph, Validators
from backstay.graph.model import GraphName, Line, Moment, Node, Whole
from backstay.graph.strict_json import check_json
from backstay.graph.validated import Validated

# A node with MAX_DEPS of everything still fits.
MAX_LINE: Final = 64 << 20  # bytes
MAX_DOCUMENT: Final = 1 << 30  # bytes
MAX_HEAD: Final = 1 << 20  # bytes

MAX_NODES: Final = 100_000_000

_FORMAT: Final = "backstay.graph/1"


class HeadDocument(GraphHead):
    """A graph's head as it stands before its nodes, of which it has the number, so that a torn end is seen."""

    refusal: ClassVar[type[BackstayError]] = InvalidDocument
    kind: ClassVar[str] = "head of the graph"

    format: Literal["backstay.graph/1"]
    node_count: Whole

    def head(self) -> GraphHead:
        """What is said of the graph itself."""
        return GraphHead.parse(_head_fields(self))


class _GraphDocument(Validated):
    """What people may write by hand, so that only the nodes must be there."""

    refusal: ClassVar[type[BackstayError]] = InvalidDocument
    kind: ClassVar[str] = "graph document"

    name: GraphName = "default"
    version: Line = "1"
    timestamp: Moment | None = None
    consensus: StrictBool = False
    validated_by: Validators = ()
    format: Literal["backstay.graph/1"] = _FORMAT
    node_count: Whole | None = None
    nodes: Annotated[tuple[Node, ...], Field(max_length=MAX_NODES)]


def write_head(graph: MetadataGraph) -> bytes:
    """The head of a graph as one line of JSON."""
    document = HeadDocument.parse(_head_fields(graph.head) | {"format": _FORMAT, "node_count": len(graph)})
    return document.model_dump_json().encode() + b"\n"


def write_nodes(graph: MetadataGraph) -> Iterator[bytes]:
    """The nodes as JSON lines, by id. Raises InvalidNode for one that `read_nodes` would refuse for its length."""
    for node in _by_id(graph):
        yield _written(node) + b"\n"


def write_document(graph: MetadataGraph) -> Iterator[bytes]:
    """The whole graph as one JSON document, in pieces."""
    yield write_head(graph).removesuffix(b"}\n") + b',"nodes":['
    comma = b"\n"
    for node in _by_id(graph):
        yield comma + _written(node)
        comma = b",\n"
    yield b"\n]}\n"


def read_head(document: bytes) -> HeadDocument:
    """The head that `write_head` wrote; raises InvalidDocument."""
    _check_size(len(document), MAX_HEAD, "the head of the graph")
    return HeadDocument.parse_json(document)


def read_nodes(pieces: Iterable[bytes]) -> Iterator[Node]:
    """The nodes of JSON lines that come in pieces of any length; raises InvalidNode with the line and the node."""
    validate = Node.__pydantic_validator__.validate_json
    for number, line in enumerate(_lines(pieces), start=1):
        try:
            node: Node = validate(line)
        except ValidationError as error:
            wrong = Node.refused(error, _loosely(line))
            raise InvalidNode(f"line {number}: {wrong.title}", cause=wrong.cause) from error
        yield node


def read_graph(head: bytes, pieces: Iterable[bytes]) -> MetadataGraph:
    """The graph of a head and of JSON lines; raises InvalidDocument, InvalidNode or DuplicateNode."""
    said = read_head(head)
    with collector_at_rest():
        return _counted(MetadataGraph.of(said.head(), read_nodes(pieces)), said.node_count)


def read_document(document: bytes | str, *, clock: Clock | None = None) -> MetadataGraph:
    """The graph of one JSON document, of now if it has no timestamp; raises InvalidDocument or DuplicateNode."""
    _check_size(len(document), MAX_DOCUMENT, "the graph document")
    with collector_at_rest():
        said = _GraphDocument.parse_json(document)
        check_json(document, "the graph document")
        fields = _head_fields(said) | {"timestamp": said.timestamp or (clock or SystemClock()).now()}
        return _counted(MetadataGraph.of(GraphHead.parse(fields), said.nodes), said.node_count)


def _counted(graph: MetadataGraph, count: int | None) -> MetadataGraph:
    if count is not None and len(graph) != count:
        cause = f"it has {plural(len(graph), 'node')} and says that it has {format_count(count)}"
        raise InvalidDocument(f"graph {graph.name} is not whole", cause=cause)
    return graph


def _by_id(graph: MetadataGraph) -> Iterator[Node]:
    return (graph.nodes[name] for name in sorted(graph.nodes))


def _written(node: Node) -> bytes:
    line = node.model_dump_json(exclude_defaults=True).encode()
    if len(line) >= MAX_LINE:
        raise InvalidNode(f"node {node.id} is too large", cause=f"it takes more than {format_size(MAX_LINE)} as JSON")
    return line


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without their ends, of which at most one and a piece are in memory."""
    begun: list[bytes] = []
    size = 0
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            _check_size(size + len(line), MAX_LINE, "a line of the nodes")
            yield b"".join((*begun, line)) if begun else line
            begun, size = [], 0
        if rest:
            begun.append(rest)
            size += len(rest)
            _check_size(size, MAX_LINE, "a line of the nodes")
    if begun:
        yield b"".join(begun)


def _check_size(size: int, most: int, what: str) -> None:
    if size > most:
        raise InvalidDocument(f"{what} is too large", cause=f"it has more than {format_size(most)}")


def _loosely(line: bytes) -> object:
    """What JSON a refused line holds, to tell its id; None if it holds none."""
    try:
        return from_json(line)
    except ValueError:
        return None


def _head_fields(said: GraphHead | _GraphDocument) -> dict[str, object]:
    return {name: getattr(said, name) for name in GraphHead.model_fields}
