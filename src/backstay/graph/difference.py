"""What differs between two graphs, node by node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata


class NodeDifference(NamedTuple):
    """One node that is not the same; `fields` are those that differ, as `hash` or `metadata.path`."""

    id: str
    change: Literal["added", "removed", "changed"]
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDifference:
    """The nodes that differ, by id, and the number of those that do not."""

    nodes: tuple[NodeDifference, ...]
    unchanged: int


def difference(before: MetadataGraph, after: MetadataGraph) -> GraphDifference:
    """Compare two graphs by the ids of their nodes."""
    found = tuple(_nodes(before, after))
    return GraphDifference(nodes=found, unchanged=len(after) - sum(node.change != "removed" for node in found))


def _nodes(before: MetadataGraph, after: MetadataGraph) -> Iterator[NodeDifference]:
    for name in sorted({*before.nodes, *after.nodes}):
        old, new = before.get(name), after.get(name)
        if old is None:
            yield NodeDifference(name, "added")
        elif new is None:
            yield NodeDifference(name, "removed")
        elif old != new:
            yield NodeDifference(name, "changed", tuple(_fields(old, new)))


def _fields(old: Node, new: Node) -> Iterator[str]:
    for name in Node.model_fields:
        if name != "metadata" and getattr(old, name) != getattr(new, name):
            yield name
    for name in NodeMetadata.model_fields:
        if getattr(old.metadata, name) != getattr(new.metadata, name):
            yield f"metadata.{name}"
