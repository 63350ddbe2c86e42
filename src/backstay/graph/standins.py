"""Graphs as they are in force, where the snapshot that was referred to is deleted: they stand in for it.

Whoever made the newer snapshot of such a graph may have let it depend back on what depends on the older one. Nothing
was wrong with either of them, so that only the nodes that would need each other cannot be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from backstay.graph.model import Ref
from backstay.graph.ordering import knots


class Standin(NamedTuple):
    """The id of the snapshot that is taken, and that of the one that was deleted."""

    snapshot: str
    deleted: str


class Absent(NamedTuple):
    """A dependency that is not at hand, and what to say of whoever is made from it."""

    dep: str
    why: str


def without_back_references(
    graph: str,
    deps: MutableMapping[str, tuple[str, ...]],
    names: MutableMapping[str, tuple[str, ...]],
    standins: Mapping[str, Standin],
) -> dict[str, Absent]:
    """Take those dependencies on stand-ins away that are part of a cycle, from keys and names; whose they were."""
    absent: dict[str, Absent] = {}
    for knot in list(knots(deps)):
        for key in sorted(knot & names.keys()):
            kept = []
            for name, need in zip(names[key], deps[key], strict=True):
                ref = Ref.parse(need)
                if need in knot and ref is not None and ref.graph in standins:
                    absent.setdefault(key, _told(graph, key, ref, standins[ref.graph]))
                else:
                    kept.append((name, need))
            names[key] = tuple(name for name, _ in kept)
            deps[key] = tuple(need for _, need in kept)
    return absent


def _told(graph: str, key: str, ref: Ref, standin: Standin) -> Absent:
    by = Ref.parse(key) or Ref(graph, key)
    why = (
        f"it is made from {ref}, and snapshot {standin.deleted} of graph {ref.graph}, which had that, was deleted; the "
        f"newer {standin.snapshot} depends back on {by.node} of graph {by.graph}: restore a newer snapshot of graph "
        f"{by.graph}, or store this output again"
    )
    return Absent(str(ref), why)
