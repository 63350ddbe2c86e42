"""Repair a repository: the index from the packs, packs from what is readable in them, snapshots without what is lost.

In this order: `repair index`, `repair packs`, `repair snapshots`. Each makes the new durable before it removes the
old, so that it may be stopped anywhere and run again.
"""

from __future__ import annotations

from collections.abc import Iterable

from backstay.core.events import EventSink, ignore
from backstay.operations.repair.index import IndexRepair
from backstay.operations.repair.packs import PackRepair
from backstay.operations.repair.result import LostPath, RepairResult
from backstay.operations.repair.snapshots import SnapshotRepair
from backstay.repository.repository import Repository


def repair_index(repository: Repository, *, events: EventSink = ignore) -> RepairResult:
    """Make the index name the packs that the store has: all of them, and no others.

    Needs nothing but the packs: they are self-describing. Packs that a collection deleted stay out, condemned ones
    stay unusable until its verdict.
    """
    return IndexRepair(repository, events).run()


def repair_packs(
    repository: Repository, packs: Iterable[str] | None = None, *, events: EventSink = ignore
) -> RepairResult:
    """Copy what is readable in damaged packs to new ones, then delete the damaged.

    `packs` are names, digests or their beginnings; without them every pack is read to find the damaged ones. Packs
    that the store lost leave the index, so that the next backup stores their chunks again: put objects back that
    another copy has before you run this. Raises NotFound, InvalidRequest, CollectionBusy when a collector was
    faster, CorruptedBackup while the index is damaged. Manifests that cannot be read are passed over.
    """
    return PackRepair(repository, events).run(None if packs is None else list(packs))


def repair_snapshots(
    repository: Repository, ids: Iterable[str] | None = None, *, events: EventSink = ignore
) -> RepairResult:
    """Accept what is lost: vanished and unreadable snapshots are dropped, others replaced by what is left of them.

    Chunks count as lost when no index segment names them, so damaged packs have to be repaired first. `ids` are
    whole ids; without them every snapshot is looked at. Raises NotFound for an id that nothing knows.
    """
    return SnapshotRepair(repository, None if ids is None else set(ids), events).run()


__all__ = ["LostPath", "RepairResult", "repair_index", "repair_packs", "repair_snapshots"]
