"""Collects what deleted graph snapshots leave: first a plan, that only reads, then its execution.

Order, and what a crash leaves after each step:

1. marks for snapshots that are to expire: they wait for the next collection, as if they had been deleted;
2. one entry in the log of values that removes what only marked snapshots name: these still say what they named, so that
   the next collection goes on;
3. drops of the marked snapshots: marks of snapshots that do not exist, which mean nothing;
4. the marks go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from backstay.errors import HoldViolation, InvalidRequest, NotFound
from backstay.graph.snapshot_facts import graph_of
from backstay.graph.snapshots import GraphSnapshots, recorded
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.repository.values.ids import value_id
from backstay.repository.values.references import VALUES_FILE, named_values

_COLLECTED: Final = "its graph was collected"
_MAX_DAYS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Which snapshots of each graph go by themselves: beyond the newest `max_snapshots`, or older than `ttl_days`.

    Only accepted ones are counted and kept for their number, and the newest accepted one always stays. One that is
    pending goes when it is older than `ttl_days`, or than all accepted ones that are kept for their number.
    """

    max_snapshots: int | None = None
    ttl_days: float | None = None

    def __post_init__(self) -> None:
        if self.max_snapshots is not None and self.max_snapshots < 1:
            raise InvalidRequest("a graph keeps at least one snapshot", cause=f"{self.max_snapshots} were asked for")
        if self.ttl_days is not None and not 0 < self.ttl_days <= _MAX_DAYS:
            raise InvalidRequest("snapshots cannot be kept for so long", cause=f"{self.ttl_days} days were asked for")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCollectionPlan:
    """Ids of snapshots that go because they were deleted or are to expire, and of the values that go with them."""

    deleted: tuple[str, ...]
    expired: tuple[str, ...]
    values: tuple[str, ...]


def plan_collection(
    repository: Repository,
    values: ContentAddressableStorage,
    snapshots: GraphSnapshots,
    expiry: Expiry,
    *,
    unreferenced: bool = False,
) -> GraphCollectionPlan:
    """Decide, and change nothing. With `unreferenced` all values go that no snapshot names, whoever stored them.

    Raises CorruptedBackup when a snapshot or a list of values cannot be read: in doubt nothing goes.
    """
    store = repository.snapshots
    marked = store.graph_deletions.marked()
    held = store.holds.held()
    graphs = sorted((manifest for manifest in store.live() if graph_of(manifest) is not None), key=recorded)
    deleted = [manifest for manifest in graphs if manifest.id in marked and manifest.id not in held]
    there = [manifest for manifest in graphs if manifest.id not in marked or manifest.id in held]
    expired = [
        manifest for manifest in _expired(there, snapshots, expiry, repository.clock.now()) if manifest.id not in held
    ]
    going = {manifest.id for manifest in (*deleted, *expired)}
    kept = _Named(repository, [manifest for manifest in graphs if manifest.id not in going]).digests()
    if unreferenced:
        candidates: Iterable[str] = (ulid for ulid in values.list() if bytes.fromhex(ulid[-64:]) not in kept)
    else:
        named = _Named(repository, [*deleted, *expired]).digests() - kept
        lost = set(values.missing(map(value_id, named)))
        candidates = (found for found in map(value_id, sorted(named)) if found not in lost)
    return GraphCollectionPlan(
        deleted=tuple(manifest.id for manifest in deleted),
        expired=tuple(manifest.id for manifest in expired),
        values=tuple(candidates),
    )


def execute_collection(
    repository: Repository, values: ContentAddressableStorage, plan: GraphCollectionPlan
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Carry a plan out: (ids of snapshots, ids of values) that went. What somebody began to use meanwhile stays.

    Raises ValueBusy, before any snapshot is dropped, while a snapshot is being made that may use one of the values.
    """
    store, marks = repository.snapshots, repository.snapshots.graph_deletions
    expired = [ulid for ulid in plan.expired if _marked(repository, ulid)]
    gone = tuple(values.discard(plan.values)) if plan.values else ()
    dropped = []
    for ulid in (*plan.deleted, *expired):
        try:
            store.drop(ulid, _COLLECTED, repository.clock)
        except HoldViolation:  # somebody put a hold on it just before it was marked, and keeps it
            continue
        except NotFound:  # another collection was faster
            pass
        else:
            dropped.append(ulid)
        marks.unmark(ulid)
    _forget_needless_marks(repository)
    return tuple(dropped), gone


def mark_deleted(repository: Repository, ulid: str, reason: str) -> bool:
    """Mark a snapshot; False if it was marked before. Raises HoldViolation."""
    store = repository.snapshots
    store.holds.require_free([ulid])
    if not store.graph_deletions.mark(ulid, reason, repository.clock):
        return False
    try:
        store.holds.require_free([ulid])
    except HoldViolation:
        store.graph_deletions.unmark(ulid)
        raise
    return True


def _marked(repository: Repository, ulid: str) -> bool:
    """Mark a snapshot that is to expire; False if a hold keeps it."""
    try:
        mark_deleted(repository, ulid, "it expired")
    except HoldViolation:
        return False
    return True


def _forget_needless_marks(repository: Repository) -> None:
    """Those of snapshots that are dropped: a crash, or two collections at once, left them."""
    marks = repository.snapshots.graph_deletions
    for ulid in repository.snapshots.dropped(marks.marked()):
        marks.unmark(ulid)


def _expired(there: Sequence[Manifest], snapshots: GraphSnapshots, expiry: Expiry, now: datetime) -> list[Manifest]:
    if expiry.max_snapshots is None and expiry.ttl_days is None:
        return []
    return [
        manifest
        for name in sorted({graph_of(manifest) or "" for manifest in there})
        for manifest in _expired_of([found for found in there if graph_of(found) == name], snapshots, expiry, now)
    ]


def _expired_of(own: list[Manifest], snapshots: GraphSnapshots, expiry: Expiry, now: datetime) -> list[Manifest]:
    accepted = [manifest for manifest in own if snapshots.standing(manifest).accepted]
    kept = {manifest.id for manifest in accepted[-expiry.max_snapshots :]} if expiry.max_snapshots else None
    oldest_kept = min((recorded(manifest) for manifest in accepted if kept and manifest.id in kept), default=(0, ""))
    in_force = accepted[-1].id if accepted else None
    accepted_ids = {manifest.id for manifest in accepted}
    found = []
    for manifest in own:
        beyond = kept is not None and (
            manifest.id not in kept if manifest.id in accepted_ids else recorded(manifest) < oldest_kept
        )
        if manifest.id != in_force and (beyond or _is_old(manifest, expiry, now)):
            found.append(manifest)
    return found


def _is_old(manifest: Manifest, expiry: Expiry, now: datetime) -> bool:
    return expiry.ttl_days is not None and now - manifest.time > timedelta(days=expiry.ttl_days)


class _Named:
    """The values that some snapshots name; equal lists are read once."""

    def __init__(self, repository: Repository, manifests: Sequence[Manifest]) -> None:
        self._repository, self._manifests = repository, manifests

    def digests(self) -> set[bytes]:
        """Their SHA-256. Raises CorruptedBackup."""
        found: set[bytes] = set()
        read: set[Content] = set()
        for manifest in self._manifests:
            content = self._list_of(manifest)
            if content is None or content not in read:
                found.update(named_values(self._repository, manifest))
            if content is not None:
                read.add(content)
        return found

    def _list_of(self, manifest: Manifest) -> Content | None:
        try:
            node = find_node(manifest.root, VALUES_FILE, self._repository.reader)
        except NotFound:  # which `named_values` tells
            return None
        return node.content if node is not None else None
