"""Hold snapshots: nobody drops them, and a store that can keeps whatever they need by a legal hold of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.pipeline import Workers
from backstay.errors import ObjectNotFound
from backstay.operations.locks.extend import present
from backstay.operations.wal.needs import needed_wal
from backstay.repository.collection.needs import needed_objects
from backstay.repository.format import snapshot_name
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.locking import AT_ONCE, UNDER_WAY, LockingPlace, locking_places


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldResult:
    """What became of a hold: whether its record changed anything, and on how many objects in how many stores it is.

    No store at all means that prune, delete and gc respect it, and that who has the store's credentials need not.
    """

    snapshot: str
    changed: bool
    objects: int
    stores: int


def set_hold(repository: Repository, snapshot: Manifest, reason: str, *, events: EventSink = ignore) -> HoldResult:
    """Hold a snapshot; done again, what was interrupted is finished. Raises NotFound.

    The record first: from then on nothing that the snapshot needs is collected, while flags are put on it.
    """
    places = locking_places(repository.backend)  # a cold tier that is away is told before anything is done
    changed = repository.snapshots.hold(snapshot.id, reason, repository.clock)
    repository.reload_index()
    objects = sum(
        _flag(place, _needed(repository, [snapshot], present(place.store)), on=True, events=events) for place in places
    )
    return HoldResult(snapshot=snapshot.id, changed=changed, objects=objects, stores=len(places))


def clear_hold(repository: Repository, snapshot: str, reason: str, *, events: EventSink = ignore) -> HoldResult:
    """Take the hold of a snapshot away, named by its id, and the store's own from what no other held one needs.

    The record last: it protects the snapshot until then, and who is interrupted does the same again. What a snapshot
    needs that is lost or damaged is not known, and stays held by the store.
    """
    places = locking_places(repository.backend)
    repository.reload_index()
    held = repository.snapshots.holds.held().keys() - {snapshot}
    live = repository.snapshots.live(on_damage=lambda name, error: None)  # noqa: ARG005 - `verify` tells of it
    own, others = [m for m in live if m.id == snapshot], [m for m in live if m.id in held]
    objects = 0
    for place in places:
        stored = present(place.store)
        names = _needed(repository, own, stored) if own else {snapshot_name(snapshot)} & stored.keys()
        if others:
            names -= _needed(repository, others, names)
        objects += _flag(place, names, on=False, events=events)
    changed = repository.snapshots.release(snapshot, reason, repository.clock)
    return HoldResult(snapshot=snapshot, changed=changed, objects=objects, stores=len(places))


def _needed(repository: Repository, snapshots: Sequence[Manifest], among: Collection[str]) -> set[str]:
    """What snapshots need of what a store has, and the WAL that makes base backups consistent, wherever it is."""
    return needed_objects(repository, snapshots, among) | needed_wal(repository, snapshots)


def _flag(place: LockingPlace, names: Iterable[str], *, on: bool, events: EventSink) -> int:
    """Put the store's own hold on objects, or take it off; on how many."""

    def flag(name: str) -> bool:
        try:
            place.retention.hold(name, on=on)
        except ObjectNotFound:  # an index segment that was superseded since; packs of a live snapshot stay
            return False
        return True

    wanted, done = sorted(names), 0
    events(Started(operation="hold", total_files=len(wanted)))
    with Workers(AT_ONCE, "hold") as workers:
        answers = workers.ordered(flag, wanted, weigh=lambda name: 1, limit=UNDER_WAY)  # noqa: ARG005
        for name, flagged in zip(wanted, answers, strict=True):
            done += flagged
            events(Progress(files=done, bytes=0, current=name))
    finished(events, "hold")
    return done
