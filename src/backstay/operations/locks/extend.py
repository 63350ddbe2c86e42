"""Extend the locks of what snapshots need, before they end.

A pack is locked when it is written; snapshots that are made weeks later rely on it as well. So each backup extends what
its snapshot needs and what is about to be unlocked; and whoever wants every snapshot kept does it for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from backstay.core.clock import datetime_from_ns
from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore, too_late_to_stop
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError, InvalidRequest, ObjectNotFound, StorageRefused
from backstay.operations.locks.memory import LockMemory
from backstay.repository.collection.needs import PACKS, needed_objects
from backstay.repository.format import WAL
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.backend import StorageBackend
from backstay.storage.locking import AT_ONCE, UNDER_WAY, LockingPlace, lock_states, locking_places
from backstay.storage.retention import SHARED, Retention, locked_until, must_stay

DUE_SHARE: Final = 0.5  # of the days for which objects are locked: with less left, a lock is extended
_NAMED: Final = 10  # objects in one message
_LISTED: Final = (*SHARED, *PACKS, "snapshots/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceExtension:
    """What is to be done in one store: these objects are locked until `until`; `locked` others are for long enough."""

    address: str
    days: int
    until: datetime
    due: tuple[str, ...]
    locked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionPlan:
    """Locks to be extended, in each copy and tier that has locks."""

    places: tuple[PlaceExtension, ...]

    @property
    def due(self) -> int:
        return sum(len(place.due) for place in self.places)

    @property
    def locked(self) -> int:
        return sum(place.locked for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionResult:
    """What was extended; `gone` were collected since the plan was made."""

    extended: int
    gone: int = 0


def plan_extension(
    repository: Repository,
    snapshots: Sequence[Manifest],
    *,
    logs: Collection[str] = (),
    share: float = DUE_SHARE,
    events: EventSink = ignore,
) -> ExtensionPlan:
    """Ask the store about everything that the snapshots need, and about objects of logs.

    Raises InvalidRequest where nothing is locked.
    """
    places = locking_places(repository.backend)
    if not places:
        raise InvalidRequest(
            f"nothing in {repository.backend.url} is locked",
            cause="its address does not say for how long",
            hint="use a bucket with Object Lock, and write ?retain-days=DAYS behind its address",
        )
    repository.reload_index()
    return ExtensionPlan(places=tuple(_ask(repository, place, snapshots, logs, share, events) for place in places))


def run_extension(repository: Repository, plan: ExtensionPlan, *, events: EventSink = ignore) -> ExtensionResult:
    """Carry a plan out. Stopped in the middle it can be made and carried out again: no lock ever gets shorter.

    Raises StorageRefused at the end, when all others are extended, if the store refused some.
    """
    events(Started(operation="extend", total_files=plan.due))
    places = {place.url: place for place in locking_places(repository.backend)}
    extended = gone = 0
    refused: dict[str, BackstayError] = {}
    for part in plan.places:
        place = places[part.address]
        memory = LockMemory(repository.cache, place.url)
        try:
            for name, outcome in zip(part.due, _extend_all(place.retention, part), strict=True):
                if isinstance(outcome, BackstayError):
                    refused[name] = outcome
                elif outcome:
                    memory.note(name, part.until)
                    extended += 1
                else:
                    gone += 1
                events(Progress(files=extended + gone + len(refused), bytes=0, current=name))
        finally:
            memory.save(repository.clock.now())
    if refused:
        raise _refused(refused, plan.due)
    finished(events, "extend")
    return ExtensionResult(extended=extended, gone=gone)


def _refused(refused: Mapping[str, BackstayError], due: int) -> StorageRefused:
    first = next(iter(refused.values()))
    names = ", ".join([*islice(refused, _NAMED), *(["..."] if len(refused) > _NAMED else [])])
    title = f"{len(refused)} of {due} locks could not be extended"
    return StorageRefused(title, cause=f"{first.cause or first.title}: {names}", hint=first.hint)


def extend_after_backup(
    repository: Repository,
    snapshot: str,
    *,
    logs: Callable[[Manifest], Collection[str]] = lambda _manifest: (),
    events: EventSink = ignore,
) -> None:
    """Extend what a new snapshot needs, with the objects of logs that `logs` tells, and what is about to be unlocked.

    The snapshot is there whatever comes of this, so that a failure, or a wish to stop, is told and does not make the
    backup fail.
    """
    try:
        places = locking_places(repository.backend)
        if not places:
            return
        manifest = repository.snapshots.get(snapshot)
        also = logs(manifest)
        plan = ExtensionPlan(places=tuple(_remember(repository, place, manifest, also) for place in places))
        if plan.due:
            run_extension(repository, plan, events=events)
    except BackstayError as error:
        told = f"what the snapshot needs is not locked for long enough: {error}"
        too_late_to_stop(events)(Warned(message=f"{told}; `backstay retain` tries it again"))


def _ask(
    repository: Repository,
    place: LockingPlace,
    snapshots: Sequence[Manifest],
    logs: Collection[str],
    share: float,
    events: EventSink,
) -> PlaceExtension:
    """What is due by the store's own word."""
    needed = needed_objects(repository, snapshots, present(place.store))
    names = sorted(needed | _present_logs(place.store, logs).keys())
    events(Started(operation="look at locks", total_files=len(names)))
    memory = LockMemory(repository.cache, place.url)
    ends: dict[str, datetime | None] = {}
    for count, (name, state) in enumerate(lock_states(place.retention, names), 1):
        ends[name] = state.until
        if state.until is not None:
            memory.note(name, state.until)
        events(Progress(files=count, bytes=0, current=name))
    memory.save(repository.clock.now())
    return _part(place, ends, repository.clock.now(), share)


def _remember(repository: Repository, place: LockingPlace, snapshot: Manifest, logs: Collection[str]) -> PlaceExtension:
    """What is due by what is known without asking: when objects were written, and what was extended from here.

    All of it must stay, and so was locked when it was written.
    """
    memory = LockMemory(repository.cache, place.url)
    now, days = repository.clock.now(), place.retention.days
    ends: dict[str, datetime | None] = {}
    of_logs = _present_logs(place.store, logs)
    for name, written in {**present(place.store), **of_logs}.items():
        locked = locked_until(written, days)
        ends[name] = max(locked, memory.end(name) or locked)
    due = [name for name, end in ends.items() if _is_due(end, now, days, DUE_SHARE)]
    needed = needed_objects(repository, [snapshot], due) | (of_logs.keys() & set(due))
    return _part(place, {name: ends[name] for name in needed}, now, DUE_SHARE)


def _part(place: LockingPlace, ends: Mapping[str, datetime | None], now: datetime, share: float) -> PlaceExtension:
    days = place.retention.days
    due = tuple(sorted(name for name, end in ends.items() if _is_due(end, now, days, share)))
    return PlaceExtension(
        address=place.url, days=days, until=locked_until(now, days), due=due, locked=len(ends) - len(due)
    )


def _is_due(end: datetime | None, now: datetime, days: int, share: float) -> bool:
    return end is None or end - now < timedelta(days=days) * share


def present(store: StorageBackend) -> dict[str, datetime]:
    """What a store has of the repository, and when it was written; not what programs leave and remove again."""
    return _written(store, _LISTED)


def _present_logs(store: StorageBackend, logs: Collection[str]) -> dict[str, datetime]:
    """Those objects of logs that a store has and locks: not parts, which go when their segment is whole."""
    wanted = {name for name in logs if must_stay(name)}
    return {name: at for name, at in _written(store, (WAL,)).items() if name in wanted} if wanted else {}


def _written(store: StorageBackend, prefixes: Sequence[str]) -> dict[str, datetime]:
    infos = (info for prefix in prefixes for info in store.list(prefix))
    return {info.name: datetime_from_ns(info.modified_ns) for info in infos}


def _extend_all(retention: Retention, part: PlaceExtension) -> Iterator[bool | BackstayError]:
    """Whether each object that was due is locked now; False for one that is gone, the refusal if there was one."""

    def extend(name: str) -> bool | BackstayError:
        try:
            retention.extend(name, part.until)
        except ObjectNotFound:
            return False
        except (InvalidRequest, StorageRefused) as error:  # of this object: others may have a lock of another kind
            return error
        return True

    with Workers(AT_ONCE, "locks") as workers:
        yield from workers.ordered(extend, part.due, weigh=lambda name: 1, limit=UNDER_WAY)  # noqa: ARG005
