"""The protocol with one step left out or misplaced: what the schedules must find out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from backstay.core.clock import Clock
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.compaction import SEGMENT_TARGET, batched_by_size, segments_to_replace, surviving
from backstay.repository.collection.garbage import Garbage
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.format import RecordKind, collection_name, index_name, pack_name, snapshot_name
from backstay.repository.index.index import Index
from backstay.repository.logs.collections import (
    CollectionLog,
    CollectionRecord,
    VerdictRecord,
    WaitingRecord,
)
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Session, running_sessions
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from backstay.storage.backend import Buffer, StorageBackend
from tests.protocol.scheduling import CROWD, PATIENT, SLOW, Profile


@dataclass(frozen=True)
class Variant:
    """One weakness: attributes replaced, the profile in which it shows, and a seed that showed it once."""

    name: str
    replaced: tuple[tuple[type, str, Any], ...]
    profile: Profile = field(default_factory=Profile)
    shown_by: int = 0

    def applied(self) -> list[Any]:
        return [patch.object(owner, name, value) for owner, name, value in self.replaced]


# -- writers


def _announce(repository: Repository) -> Session:
    session = Session(
        repository.backend,
        repository.keyring,
        repository.clock,
        process=repository.process,
        random=repository.environment.random,
    )
    session.announce()
    return session


def _look_then_announce(repository: Repository) -> Session:
    repository.reload_index()
    return _announce(repository)


def _ignore_collections(repository: Repository) -> Session:
    session = _announce(repository)
    repository.reload_index()
    repository.index.load()
    return session


class _Overwriting:
    """A store that lets anybody replace anything."""

    def __init__(self, inner: StorageBackend) -> None:
        self._inner = inner

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._inner.store(name, data, overwrite=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


_commit = SnapshotStore.commit


def _overwrite_commit(snapshots: SnapshotStore, manifest: Manifest) -> None:
    backend = snapshots._backend
    snapshots._backend = _Overwriting(backend)  # type: ignore[assignment]
    try:
        _commit(snapshots, manifest)
    finally:
        snapshots._backend = backend


def _drop_without_record(snapshots: SnapshotStore, ulid: str, reason: str, clock: Clock) -> None:
    snapshots.get(ulid)
    snapshots._backend.delete(snapshot_name(ulid))


# -- collectors


def _list_sessions_then_condemn(collector: Collector, plan: CollectionPlan) -> None:
    sessions = tuple(session.id for session in running_sessions(collector.backend, collector.keyring))
    condemned = tuple(sorted({*plan.dead, *plan.sparse}))
    collector.log.create(CollectionRecord(plan.number, 0, condemned, tuple(sorted(plan.marked))))
    collector.log.wait_for(WaitingRecord(plan.number, sessions))


def _delete_all_condemned(collector: Collector, number: int) -> VerdictRecord:
    return VerdictRecord(number, 0, collector.log.collection(number).condemned, ())


def _delete(collector: Collector, doomed: tuple[bytes, ...]) -> None:
    for digest in doomed:
        for kind in (RecordKind.DATA_PACK, RecordKind.META_PACK):
            collector.backend.delete(pack_name(kind, digest))


def _delete_then_decide(collector: Collector, number: int) -> tuple[VerdictRecord | None, list[str]]:
    waiting = collector.resolve(number, collector.sessions_to_wait_for(number))
    if waiting:
        return None, waiting
    verdict = collector.judge(number)
    _delete(collector, verdict.deleted)
    return collector.log.decide(verdict), []


def _decide_and_keep_to_it(collector: Collector, number: int) -> tuple[VerdictRecord | None, list[str]]:
    waiting = collector.resolve(number, collector.sessions_to_wait_for(number))
    if waiting:
        return None, waiting
    verdict = collector.judge(number)
    collector.log.decide(verdict)
    _delete(collector, verdict.deleted)  # whatever another collector has decided
    return verdict, []


def _overwrite_collection(log: CollectionLog, record: CollectionRecord) -> None:
    backend = log._backend
    log._backend = _Overwriting(backend)  # type: ignore[assignment]
    try:
        log._store(collection_name(record.number), record)
    finally:
        log._backend = backend


def _delete_segments_first(collector: Collector, doomed: set[bytes]) -> None:
    index = collector.repository.index
    index.load(deleted=doomed, condemned=collector.log.condemned())
    names = segments_to_replace(collector.repository, doomed)
    batches = [*batched_by_size(surviving(collector.repository, names, doomed), SEGMENT_TARGET)]
    for name in names:
        collector.backend.delete(index_name(name))
    for batch in batches:
        index.write(batch, supersedes=names)


def _delete_unread_segments(collector: Collector, doomed: set[bytes]) -> None:
    index = collector.repository.index
    index.load(deleted=doomed, condemned=collector.log.condemned())
    names = index.segments()
    batches = batched_by_size(surviving(collector.repository, names, doomed), 1)
    new = {index_name(index.write(batch, supersedes=names)) for batch in batches}
    for info in [*collector.backend.list("index/")]:
        if info.name not in new:
            collector.backend.delete(info.name)


_rewrite = Collector._rewrite


def _rewrite_without_index(collector: Collector, plan: CollectionPlan) -> None:
    with patch.object(collector.repository.index, "write", _nothing):
        _rewrite(collector, plan)


def _rewrite_condemning(collector: Collector, plan: CollectionPlan, condemned: set[bytes]) -> None:
    """What is copied is what does not also lie in packs other than these."""
    index = collector.repository.index
    load = index.load
    with patch.object(index, "load", lambda **_: load(deleted=collector.log.deleted(), condemned=condemned)):
        _rewrite(collector, plan)


def _rewrite_relying_on_condemned(collector: Collector, plan: CollectionPlan) -> None:
    _rewrite_condemning(collector, plan, set(plan.sparse) | set(plan.dead))


def _rewrite_relying_on_dead_packs(collector: Collector, plan: CollectionPlan) -> None:
    _rewrite_condemning(collector, plan, set(plan.sparse) | collector.log.condemned())


def _nothing(*_: object, **__: object) -> set[bytes]:
    return set()


def _yes(*_: object) -> bool:
    return True


def _no(*_: object) -> bool:
    return False


def _nobody(*_: object) -> tuple[str, ...]:
    return ()


WEAK: Final = [
    Variant("collector ignores sessions", ((Collector, "sessions_to_wait_for", _nobody),), shown_by=26),
    Variant(
        "writer looks before it announces itself", ((Repository, "begin_session", _look_then_announce),), shown_by=260
    ),
    Variant(
        "sessions are listed too early", ((Collector, "condemn", _list_sessions_then_condemn),), PATIENT, shown_by=240
    ),
    Variant("late snapshots are not judged", ((Collector, "judge", _delete_all_condemned),)),
    Variant("packs are deleted before the verdict", ((Collector, "finish", _delete_then_decide),), CROWD, shown_by=54),
    Variant(
        "a collector keeps to its own verdict", ((Collector, "finish", _decide_and_keep_to_it),), CROWD, shown_by=54
    ),
    Variant("collections are overwritten", ((CollectionLog, "create", _overwrite_collection),), CROWD, shown_by=166),
    Variant(
        "segments are deleted before their successor", ((Collector, "compact", _delete_segments_first),), shown_by=26
    ),
    Variant("segments are deleted unread", ((Collector, "compact", _delete_unread_segments),)),
    Variant("rewritten packs are not indexed", ((Collector, "_rewrite", _rewrite_without_index),)),
    Variant("rewriting relies on condemned packs", ((Collector, "_rewrite", _rewrite_relying_on_condemned),), CROWD),
    Variant(
        "rewriting relies on packs of its plan",
        ((Collector, "_rewrite", _rewrite_relying_on_dead_packs),),
        CROWD,
        shown_by=1306,
    ),
    Variant("writer ignores collections", ((Repository, "begin_session", _ignore_collections),), shown_by=1136),
    Variant("a drop leaves no record", ((SnapshotStore, "drop", _drop_without_record),)),
    Variant("commit overwrites", ((SnapshotStore, "commit", _overwrite_commit),), SLOW, shown_by=67),
    Variant(
        "late snapshots are judged by their pack lists", ((Collector, "_packs_holding", _nothing),), CROWD, shown_by=107
    ),
    Variant("readers avoid condemned packs", ((Index, "find", Index.find_reusable),)),
    Variant("a pack that no segment names is dead", ((Garbage, "_alone_holds_live", _no),), shown_by=45),
]

# Too rare for chance: what shows it is written out among the known schedules.
ANY_BASE: Final = Variant("any snapshot serves as base", ((CollectionLog, "may_build_on", _yes),))
