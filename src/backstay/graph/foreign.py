"""What a graph takes from other graphs: which snapshots of these it refers to, and which of their values it needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from backstay.errors import MissingDependency, NotFound
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.scope import Scope
from backstay.graph.snapshot_facts import Required, required_snapshots
from backstay.graph.snapshots import GraphSnapshots
from backstay.graph.standins import Standin
from backstay.repository.snapshots.store import Manifest


@dataclass(frozen=True, slots=True)
class OtherGraphs:
    """Graphs by name; `standins` are those that are not as they were referred to."""

    graphs: dict[str, MetadataGraph] = field(default_factory=dict)
    standins: dict[str, Standin] = field(default_factory=dict)


def required_by(graph: MetadataGraph, snapshots: GraphSnapshots) -> Required:
    """What a graph takes from others as they are now. Raises MissingDependency, CycleFound, CorruptedBackup."""
    if not graph.foreign:
        return Required()
    others: dict[str, MetadataGraph | None] = {}
    ids: dict[str, str] = {}
    values: set[str] = set()
    missing: dict[str, tuple[str, ...]] = {}
    for node, refs in graph.foreign.items():
        for ref in refs:
            if ref.graph == graph.name:  # its own node, written as that of another
                found = graph.get(ref.node)
            else:
                if ref.graph not in others:
                    others[ref.graph] = _in_force(ref.graph, snapshots, ids)
                other = others[ref.graph]
                found = other.get(ref.node) if other is not None else None
            if found is None:
                missing[str(ref)] = (*missing.get(str(ref), ()), node)
            elif found.status == "completed":
                values.update(key.removeprefix("sha256:") for key in found.values)
    if missing:
        raise MissingDependency(missing)
    reached = _reached(ids.items(), snapshots)
    Scope.of(graph, reached.graphs, reached.standins)  # refuses a cycle that leads through several graphs
    return Required(snapshots=tuple(sorted(ids.items())), values=frozenset(values))


def other_graphs(manifest: Manifest, snapshots: GraphSnapshots) -> OtherGraphs:
    """The graphs that a snapshot refers to, and those that these refer to.

    Each is as it was referred to, or as it is in force now where that snapshot was deleted; one of which there is
    nothing any more is left out. Raises CorruptedBackup.
    """
    return _reached(required_snapshots(manifest), snapshots)


def _reached(required: Iterable[tuple[str, str]], snapshots: GraphSnapshots) -> OtherGraphs:
    found = OtherGraphs()
    waiting = deque(required)
    through_standins: deque[tuple[str, str]] = deque()  # last, so that what was referred to comes before them
    seen: set[str] = set()
    while waiting or through_standins:
        is_as_it_was = bool(waiting)
        name, ulid = (waiting or through_standins).popleft()
        if name in seen:
            continue
        seen.add(name)
        try:
            other: Manifest | None = snapshots.manifest(ulid)
        except NotFound:
            other, is_as_it_was = snapshots.newest_accepted(name), False
        if other is not None:
            found.graphs[name] = snapshots.graph(other)
            if other.id != ulid:
                found.standins[name] = Standin(snapshot=other.id, deleted=ulid)
            (waiting if is_as_it_was else through_standins).extend(required_snapshots(other))
    return found


def _in_force(name: str, snapshots: GraphSnapshots, ids: dict[str, str]) -> MetadataGraph | None:
    manifest = snapshots.newest_accepted(name)
    if manifest is None:
        return None
    ids[name] = manifest.id
    return snapshots.graph(manifest)
