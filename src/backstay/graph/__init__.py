"""Graphs of computed values: snapshots of them, and restores that recompute what is missing.

from backstay.graph import MetadataGraph, Node

graph = MetadataGraph("etl")
graph.add(Node(id="clean", hash="sha256:…", deps=["raw"], status="completed"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Where each public name lives; loaded when asked for, as pydantic takes long to import.
_HOMES = {
    "GraphBackupManager": "backstay.graph.manager",
    "GraphError": "backstay.errors",
    "MetadataGraph": "backstay.graph.metadata_graph",
    "Node": "backstay.graph.model",
    "NodeMetadata": "backstay.graph.model",
    "RegenerationPolicy": "backstay.graph.policy",
    "recomputes": "backstay.graph.recompute",
}

__all__ = [
    "GraphBackupManager",
    "GraphError",
    "MetadataGraph",
    "Node",
    "NodeMetadata",
    "RegenerationPolicy",
    "recomputes",
]

if TYPE_CHECKING:
    from backstay.errors import GraphError
    from backstay.graph.manager import GraphBackupManager
    from backstay.graph.metadata_graph import MetadataGraph
    from backstay.graph.model import Node, NodeMetadata
    from backstay.graph.policy import RegenerationPolicy
    from backstay.graph.recompute import recomputes


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
