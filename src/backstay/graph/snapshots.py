"""Graph snapshots as they are found in a repository, and how far validators let each of them count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal, TypeAlias

from backstay.core.ids import is_ulid
from backstay.errors import BackstayError, NotFound, QuorumNotReached
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.snapshot_facts import NODE_COUNT, VALUE_COUNT, graph_of, required_snapshots
from backstay.graph.snapshot_files import read_stored_graph
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.trust.quorum import QuorumPolicy, Standing

State: TypeAlias = Literal["pending", "accepted"]


@dataclass(frozen=True, kw_only=True)
class GraphSnapshot:
    """One snapshot of a graph; `graph` is read when it is asked for.

    `state` is what the reader's quorum policy makes of it, `validated_by` and `missing` are names of validators.
    Without a policy a snapshot is accepted, unless it was made under one: then only that can tell, and it is pending.
    """

    id: str
    name: str
    description: str
    tags: tuple[str, ...]
    time: datetime
    state: State
    validated_by: tuple[str, ...]
    missing: tuple[str, ...]
    nodes: int
    values: int
    requires: Mapping[str, str]
    _load: Callable[[], MetadataGraph] = field(repr=False, compare=False)

    @cached_property
    def graph(self) -> MetadataGraph:
        """The graph as it was. Raises CorruptedBackup, GraphError."""
        return self._load()


class GraphSnapshots:
    """The graph snapshots of a repository that exist: neither dropped nor marked as deleted."""

    def __init__(self, repository: Repository, quorum: QuorumPolicy | None) -> None:
        self._repository, self._quorum = repository, quorum
        self._read: tuple[Content, MetadataGraph] | None = None

    def manifests(
        self, name: str | None = None, on_damage: Callable[[str, BackstayError], None] | None = None
    ) -> list[Manifest]:
        """Those of a graph, or of all, oldest first. One that cannot be read goes to `on_damage`, or raises."""
        snapshots = self._repository.snapshots
        marked = snapshots.graph_deletions.marked(on_damage)
        live = sorted(snapshots.live(on_damage), key=recorded)
        return [found for found in live if graph_of(found) is not None and found.id not in marked and _is(found, name)]

    def all(self, name: str | None = None) -> list[GraphSnapshot]:
        """The same, with what validators say."""
        return [*map(self.told, self.manifests(name))]

    def manifest(self, ulid: str) -> Manifest:
        """One by its id. Raises NotFound, CorruptedBackup."""
        if not is_ulid(ulid) or self._repository.snapshots.graph_deletions.is_marked(ulid):
            raise no_graph_snapshot(ulid, "it was deleted" if is_ulid(ulid) else "no id looks like this")
        found = self._repository.snapshots.get(ulid)
        if graph_of(found) is None:
            raise no_graph_snapshot(ulid, f"it is a snapshot of {found.source}")
        return found

    def newest_accepted(self, name: str | None = None) -> Manifest | None:
        """The one that is in force: a later one that is pending leaves it so."""
        newest_first = reversed(self.manifests(name))
        return next((found for found in newest_first if self.standing(found).accepted), None)

    def standing(self, manifest: Manifest) -> Standing:
        """How far a snapshot has come by the reader's policy."""
        if self._quorum is None:
            return Standing(required=0 if manifest.policy is None else 1, validated_by=(), missing=())
        repository = self._repository
        digest = repository.snapshots.digest(manifest.id)
        return repository.attestations.standing(manifest.id, self._quorum, digest=digest)

    def require_accepted(self, manifest: Manifest) -> None:
        """Raises QuorumNotReached, naming who is missing."""
        if self._quorum is None and manifest.policy is not None:
            raise QuorumNotReached(
                f"nobody can tell whether snapshot {manifest.id} is accepted",
                cause="it was made under a quorum policy, and none was given",
                hint="give the policy, or take the snapshot as it is and say so",
            )
        self.standing(manifest).require(manifest.id)

    def graph(self, manifest: Manifest) -> MetadataGraph:
        """The graph of a snapshot; the one read last is kept. Raises CorruptedBackup, GraphError."""
        if self._read is None or self._read[0] != manifest.root:
            self._read = manifest.root, read_stored_graph(self._repository, manifest.root)
        return self._read[1]

    def told(self, manifest: Manifest) -> GraphSnapshot:
        """A manifest as people see it."""
        standing = self.standing(manifest)
        facts = manifest.consistency
        return GraphSnapshot(
            id=manifest.id,
            name=graph_of(manifest) or "",
            description=manifest.description,
            tags=manifest.tags,
            time=manifest.time,
            state="accepted" if standing.accepted else "pending",
            validated_by=standing.validated_by,
            missing=standing.missing,
            nodes=_count(facts.get(NODE_COUNT)),
            values=_count(facts.get(VALUE_COUNT)),
            requires=dict(required_snapshots(manifest)),
            _load=lambda: read_stored_graph(self._repository, manifest.root),
        )


def recorded(manifest: Manifest) -> tuple[int, str]:
    """Sorts snapshots in the order in which they were committed, as far as clocks can tell."""
    return manifest.recorded_ns, manifest.id


def no_graph_snapshot(ulid: str, cause: str) -> NotFound:
    """The error for a graph snapshot that is not there."""
    return NotFound(
        f"there is no graph snapshot {ulid}", cause=cause, hint="`backstay graph list` shows those there are"
    )


def _is(manifest: Manifest, name: str | None) -> bool:
    return name is None or graph_of(manifest) == name


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
