"""Errors of graphs of computed values, and of making these again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from backstay.errors.base import BackstayError

_TOLD_NODES: Final = 100  # that one error lists


class GraphError(BackstayError):
    """A graph of computed values is not what it must be; nothing was changed."""

    default_hint = "mend the graph; docs/graphs.md says what it must be"


class InvalidNode(GraphError):
    """A field of a node or of a graph is missing, unknown, or has a value that cannot be."""


class InvalidDocument(GraphError):
    """A file that should describe a graph cannot be read as one."""

    default_hint = "it was not written by Backstay, or changed since; docs/graphs.md has the formats"


class DuplicateNode(GraphError):
    """Two nodes have one id."""

    default_hint = "use `replace` to put a node in the place of another"

    def __init__(self, node: str) -> None:
        super().__init__(f"node {node} is there already", cause="an id names one node of a graph")
        self.node = node


class UnknownNode(GraphError):
    """The graph has no node of this id."""

    default_hint = "`backstay graph show` lists the nodes of a snapshot"

    def __init__(self, node: str, *, graph: str) -> None:
        super().__init__(f"graph {graph} has no node {node!r}")
        self.node = node


class MissingDependency(GraphError):
    """Nodes depend on nodes that are not there; `missing` has for each of these who needs it."""

    default_hint = "add the missing nodes, or take them out of the deps of those that name them"

    def __init__(self, missing: Mapping[str, tuple[str, ...]]) -> None:
        told = [f"{node} (needed by {', '.join(_cut(by))})" for node, by in missing.items()]
        super().__init__("the graph lacks nodes that others depend on", cause="; ".join(_cut(told)))
        self.missing = missing


class CycleFound(GraphError):
    """Nodes depend on themselves; each of `cycle` on the next, and the last on the first."""

    default_hint = "take one of these dependencies away"

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__("the graph has a cycle", cause=" → ".join((*_cut(cycle), cycle[0])))
        self.cycle = cycle


class OutputConflict(GraphError):
    """The outputs of two nodes would be one file, or one the directory of the other."""

    default_hint = "give each node a path of its own"

    def __init__(self, path: str, nodes: tuple[str, str]) -> None:
        super().__init__(
            f"nodes {nodes[0]} and {nodes[1]} cannot both have their outputs", cause=f"both need the path {path}"
        )
        self.path = path
        self.nodes = nodes


class OutputMissing(GraphError):
    """The value that a node made is not stored."""

    default_hint = "recompute it by `backstay graph restore`"


class OutputMismatch(GraphError):
    """A value is not the one that a node made: its bytes, its size or its form are others."""

    default_hint = "recompute it by `backstay graph restore`"


class RecomputeFailed(GraphError):
    """A node could not be made again: what should make it raised, gave up, or made something else."""

    default_hint = "mend the cause and run the same restore again: nodes that are good already are left alone"


class RecomputeTimeout(RecomputeFailed):
    """Making a node again took longer than it may."""

    default_hint = "give it more time by the policy's deadline, or see why it hangs"


class WorkerLost(RecomputeFailed):
    """The process that should make a node ended, or answers what makes no sense."""

    transient = True
    default_hint = "start its command by hand to see what it says"


class InputLost(GraphError):
    """What a node is made from cannot be read."""

    default_hint = "run the same restore again: it recomputes that first"


class OutputsBusy(GraphError):
    """Another restore writes into the same directory."""

    exit_status = 11
    transient = True
    default_hint = "wait until it has ended"


def _cut(names: Sequence[str]) -> list[str]:
    """The names that a person can still read; programs find all of them in the error."""
    if len(names) <= _TOLD_NODES:
        return list(names)
    return [*names[:_TOLD_NODES], f"… {len(names) - _TOLD_NODES} more"]
