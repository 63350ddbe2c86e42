"""Garbage collection without locks: condemn, wait or fence, look again, delete (docs/crash-safety.md).

Each step is durable before the next begins, and any later collector can take over after any of them:

1. the number of the next collection is read; whoever creates that record first has the turn;
2. every listing of every snapshot is walked; chunks worth keeping in packs that are mostly dead are copied to new
   packs, which are indexed (a crash leaves duplicates, which a later collection removes);
3. gc/<n> condemns packs: from here on no new writer uses them;
4. gc/<n>.sessions fixes the writers announced before that; each must commit, give up, or be fenced;
5. snapshots that were not walked in step 2 are walked now: packs that they need are kept; gc/<n>.done fixes this;
6. index segments without the deleted packs supersede those that name them, then the old segments are deleted;
7. the packs are deleted, then the objects of dropped snapshots.

On a full disk the reserve is given up before step 3, step 2 is left out, and step 7 comes before 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from backstay.core.events import EventSink, Progress, Started, Warned, ignore
from backstay.core.ids import is_digest
from backstay.core.pipeline import Workers
from backstay.errors import (
    CorruptedBackup,
    HoldViolation,
    InsufficientSpace,
    ObjectFrozen,
    ObjectNotFound,
    TierNotAttached,
)
from backstay.repository import reserve
from backstay.repository.chunk_filter import ChunkFilter
from backstay.repository.collection_log import CollectionLog, CollectionRecord, VerdictRecord, WaitingRecord
from backstay.repository.format import RecordKind, index_name, pack_name
from backstay.repository.index import IndexedPack, read_segment, stored_pack
from backstay.repository.marking import mark
from backstay.repository.pack import TRAILER_BYTES, PackTable, StoredPack, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, header_epoch
from backstay.repository.repository import Repository
from backstay.repository.sessions import LEASE, RunningSession, is_dead, running_sessions, store_time
from backstay.repository.snapshots import Manifest
from backstay.storage.locking import kept_by_locks
from backstay.storage.retention import LockState

WORTH_KEEPING: Final = 0.6  # packs with a smaller part of live bytes are rewritten
SMALL_PACK: Final = 8 << 20  # bytes; many packs below this size are rewritten into few
MANY_SMALL: Final = 16
MANY_SEGMENTS: Final = 16  # index segments beyond which small ones are merged
SMALL_SEGMENT: Final = 1 << 20
SEGMENT_TARGET: Final = 16 << 20  # bytes of tables in one merged segment


@dataclass(slots=True)
class CollectionPlan:
    """What a collection would do; sizes in bytes."""

    number: int
    marked: tuple[str, ...] = ()
    dead: dict[bytes, tuple[RecordKind, int]] = field(default_factory=dict)  # pack -> kind, size
    sparse: dict[bytes, tuple[RecordKind, int, int]] = field(default_factory=dict)  # pack -> kind, size, live bytes
    total_packs: int = 0
    total_bytes: int = 0
    unfinished: tuple[int, ...] = ()
    live: ChunkFilter | None = field(default=None, repr=False)

    @property
    def dead_bytes(self) -> int:
        return sum(size for _, size in self.dead.values())

    @property
    def rewritten_bytes(self) -> int:
        return sum(live for _, _, live in self.sparse.values())

    @property
    def freed_bytes(self) -> int:
        """What is expected to be free once the collection and all that it waits for are done."""
        return self.dead_bytes + sum(size - live for _, size, live in self.sparse.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionResult:
    """What a collection did; `waiting_for` are the writers that keep it from finishing now."""

    deleted_packs: int
    freed_bytes: int
    rewritten_bytes: int
    kept_packs: int
    fenced: tuple[str, ...]
    waiting_for: tuple[str, ...]
    swept_temporaries: int = 0
    deferred_packs: int = 0  # in a cold tier that is not attached; a later collection deletes them
    deferred_bytes: int = 0
    retained_packs: int = 0  # deleted as far as programs see, but locked: the store keeps their bytes for now
    retained_bytes: int = 0
    retained_until: datetime | None = None  # when the last of these locks ends; None too where a hold keeps a pack


class Collector:
    """One run of garbage collection on a repository."""

    def __init__(self, repository: Repository, *, lease: timedelta = LEASE, events: EventSink = ignore) -> None:
        self.repository = repository
        self.backend, self.keyring, self.clock = repository.backend, repository.keyring, repository.clock
        self.snapshots = repository.snapshots
        self.log: CollectionLog = repository.collections
        self.lease = lease
        self.events = events
        self.fenced: list[str] = []
        self.deferred: dict[bytes, int] = {}  # packs that could not be deleted, with their sizes
        self.retained: dict[str, int] = {}  # packs that were deleted while the store had locked them, with their sizes
        self.retaining: list[LockState] = []

    def plan(self, *, allow_empty: bool = False) -> CollectionPlan:
        """Decide what is dead; changes nothing. Raises HoldViolation when nothing says that deletion is meant."""
        self.log.refresh()
        plan = CollectionPlan(number=self.log.last + 1, unfinished=tuple(self.log.open_numbers()))
        # Packs are listed before the index is read: one that is in no segment then belongs to a running writer,
        # which step 4 waits for, or to a dead one.
        stored = dict(self._stored_packs())
        self.repository.reload_index()
        self._refuse_damage()
        live = self._live_snapshots(bool(stored), allow_empty=allow_empty)
        plan.marked = tuple(snapshot.id for snapshot in live)
        plan.total_packs, plan.total_bytes = len(stored), sum(size for _, size in stored.values())
        plan.live = self._mark(live)
        self._classify(plan, stored)
        return plan

    def execute(self, plan: CollectionPlan) -> CollectionResult:
        """Carry a plan out as far as running writers allow; the rest is done by the next collection."""
        self.repository.require_fit()
        swept = self.backend.sweep_temporaries(self.lease.total_seconds(), self.clock)
        if plan.sparse:
            self._rewrite_if_room(plan)
        # What follows writes little and frees much. Copies, which may be large, must not take the room for it.
        frees = bool(plan.dead or plan.sparse or plan.unfinished)
        released = frees and reserve.release(self.repository)
        if plan.dead or plan.sparse:
            self.condemn(plan)
        results = [self.finish(number) for number in [*plan.unfinished, *self._own(plan)]]
        self._remove_dropped()
        self._remove_traces(plan.number)
        freed = self.sweep()
        if released:
            reserve.set_aside(self.repository)
        return CollectionResult(
            deleted_packs=sum(len(verdict.deleted) for verdict, _ in results if verdict),
            freed_bytes=freed,
            rewritten_bytes=plan.rewritten_bytes,
            kept_packs=sum(len(verdict.kept) for verdict, _ in results if verdict),
            fenced=tuple(self.fenced),
            waiting_for=tuple(sorted({session for _, waiting in results for session in waiting})),
            swept_temporaries=swept,
            deferred_packs=len(self.deferred),
            deferred_bytes=sum(self.deferred.values()),
            retained_packs=len(self.retained),
            retained_bytes=sum(self.retained.values()),
            retained_until=self._retained_until(),
        )

    def _retained_until(self) -> datetime | None:
        ends = [state.until for state in self.retaining if state.until is not None and not state.held]
        return max(ends) if ends and len(ends) == len(self.retaining) else None

    def _own(self, plan: CollectionPlan) -> list[int]:
        return [plan.number] if plan.dead or plan.sparse else []

    # -- step 2: what is in use

    def _stored_packs(self) -> Iterator[tuple[bytes, tuple[RecordKind, int]]]:
        for prefix, kind in (("packs/", RecordKind.DATA_PACK), ("meta/", RecordKind.META_PACK)):
            for info in self.backend.list(prefix):
                leaf = info.name.rpartition("/")[2]
                if is_digest(leaf):  # anything else is not ours to delete
                    yield bytes.fromhex(leaf), (kind, info.size)

    def _refuse_damage(self) -> None:
        if self.log.foreign:
            raise CorruptedBackup(
                "nothing is collected while something foreign lies among the records of collections",
                cause=self.log.foreign[0],
                hint="find out what put it there, and remove it",
            )
        if self.repository.index.damaged:
            name, error = self.repository.index.damaged[0]
            raise CorruptedBackup(
                "nothing is collected while the index is damaged",
                cause=f"{name}: {error}",
                hint="run `backstay repair index` first",
            )

    def _live_snapshots(self, has_packs: bool, *, allow_empty: bool) -> list[Manifest]:
        live = self.snapshots.live()
        if not live and has_packs and not allow_empty:
            raise HoldViolation(
                "the repository shows no snapshot, so nothing is collected",
                cause="that all are gone on purpose, or cannot be seen, looks the same from here",
                hint="if every snapshot was deleted on purpose, say so with --allow-empty",
            )
        lost = {s.previous for s in live if s.previous is not None} - set(self.snapshots.taken())
        lost -= self.snapshots.dropped(lost)
        if lost:
            raise CorruptedBackup(
                "nothing is collected while a snapshot is missing",
                cause=f"{min(lost)} is gone, and no record says that it was deleted",
                hint="restore the object from a copy, or accept the loss with `backstay repair snapshots`",
            )
        return live

    def _mark(self, live: list[Manifest]) -> ChunkFilter:
        self.events(Started(operation="mark", total_files=len(live)))
        chunks = sum(len(info.table.kinds) for _, info in self.repository.index.packs())
        found = ChunkFilter(max(chunks, 1) + sum(snapshot.stats.files for snapshot in live[-1:]))
        for count, snapshot in enumerate(live, 1):
            mark([snapshot], self.repository.reader, found)
            self.events(Progress(files=count, bytes=0, current=snapshot.id))
        return found

    def _classify(self, plan: CollectionPlan, stored: dict[bytes, tuple[RecordKind, int]]) -> None:
        assert plan.live is not None
        small: dict[RecordKind, list[tuple[bytes, int, int]]] = {}
        compromised = {epoch.number for epoch in self.keyring.epochs if epoch.compromised}
        unindexed = dict(stored)
        excluded = self.log.deleted() | self.log.condemned()
        cold = self._cold_packs()
        held = self._held_packs()
        for pack in self._indexed_packs():
            unindexed.pop(pack.digest, None)
            if pack.digest in excluded:
                continue
            kind = RecordKind(pack.kind)
            live, total = live_bytes(pack.table, plan.live)
            if not live:
                plan.dead[pack.digest] = (kind, pack.size)
            elif pack.digest in cold:  # to read it may cost hours, or ask for a disk: it goes when all of it is dead
                if pack.epoch in compromised:
                    self._tell_compromised(pack.digest)
            elif pack.digest in held:
                continue  # the store's own hold lies on this object, and would not on another with the same chunks
            elif live < total * WORTH_KEEPING or pack.epoch in compromised:
                plan.sparse[pack.digest] = (kind, pack.size, live)
            elif pack.size < SMALL_PACK:
                small.setdefault(kind, []).append((pack.digest, pack.size, live))
        for kind, packs in small.items():
            if len(packs) > MANY_SMALL:
                plan.sparse |= {digest: (kind, size, live) for digest, size, live in packs}
        # No segment names these: left by a dead writer, of a running one, or in a segment that was superseded while
        # the index was read. Only the pack itself says which.
        stays = stored.keys() - unindexed.keys() - plan.dead.keys() - excluded
        for digest, (kind, size) in unindexed.items():
            if digest not in excluded and not self._alone_holds_live(kind, digest, size, plan.live, stays):
                plan.dead[digest] = (kind, size)

    def _cold_packs(self) -> set[bytes]:
        leaves = (name.rpartition("/")[2] for name in self.repository.distant_packs())
        return {bytes.fromhex(leaf) for leaf in leaves if is_digest(leaf)}

    def _held_packs(self) -> set[bytes]:
        held = self.snapshots.holds.held()
        return (
            {pack for snapshot in self.snapshots.live() if snapshot.id in held for pack in snapshot.packs}
            if held
            else set()
        )

    def _tell_compromised(self, digest: bytes) -> None:
        self.events(
            Warned(
                message=f"pack {digest.hex()[:16]} is sealed with a compromised key and stays so while it is in the "
                "cold tier: bring it back with `backstay tier recall`"
            )
        )

    def _alone_holds_live(
        self, kind: RecordKind, digest: bytes, size: int, live: ChunkFilter, stays: set[bytes]
    ) -> bool:
        """Whether a pack that is in no segment holds a chunk that is needed and not in `stays`; doubt means yes."""
        name = pack_name(kind, digest)
        if size < HEADER_BYTES + TRAILER_BYTES:
            return False  # no pack
        try:
            header = self.backend.retrieve(name, start=0, length=HEADER_BYTES)
            trailer = self.backend.retrieve(name, start=size - TRAILER_BYTES, length=TRAILER_BYTES)
            length = read_footer_length(trailer, size)
            footer = self.backend.retrieve(name, start=size - TRAILER_BYTES - length, length=length)
            key = self.keyring.key(header_epoch(header, kind, self.keyring.repository))
            table = open_table(header, footer, size, key)
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return True
        index = self.repository.index
        return any(
            chunk in live and not any(index.pack(place.pack).digest in stays for place in index.find_all(chunk))
            for chunk, *_ in table.chunks()
        )

    def _indexed_packs(self) -> Iterator[IndexedPack]:
        seen: set[bytes] = set()
        for name in self.repository.index.segments():
            for pack in self._packs_in(name):
                if pack.digest not in seen:
                    seen.add(pack.digest)
                    yield pack

    def _packs_in(self, name: bytes) -> tuple[IndexedPack, ...]:
        """The packs of a segment; none when it was superseded: whoever removed it has stored another before."""
        try:
            return read_segment(self.backend, self.keyring, name).packs
        except ObjectNotFound:
            return ()

    def _rewrite_if_room(self, plan: CollectionPlan) -> None:
        """Copy what lives in sparse packs; on a full disk free what is dead first, and leave that to a later run.

        What was copied until then is in no segment: garbage, as after a crash at this place.
        """
        try:
            self._rewrite(plan)
        except InsufficientSpace as error:
            if not plan.dead and not plan.unfinished:
                raise
            plan.sparse = {}
            self.events(
                Warned(message=f"only what is in no use is freed, run `backstay gc` again for the rest: {error}")
            )

    def _rewrite(self, plan: CollectionPlan) -> None:
        """Copy what lives in sparse packs; the sparse packs themselves stay until step 7."""
        assert plan.live is not None
        repository = self.repository
        self.events(Started(operation="rewrite", total_bytes=plan.rewritten_bytes))
        sources = [pack for pack in self._indexed_packs() if pack.digest in plan.sparse]
        found = {pack.digest for pack in sources}  # others are in a segment that was superseded meanwhile
        plan.sparse = {digest: entry for digest, entry in plan.sparse.items() if digest in found}
        numbers = {pack.digest: repository.index.number(pack.digest) for pack in sources}
        # A pack that this plan condemns may have been indexed since: nothing may rely on it.
        condemned = self.log.condemned() | set(plan.sparse) | set(plan.dead)
        repository.index.load(deleted=self.log.deleted(), condemned=condemned)
        with Workers(repository.environment.threads, "seal") as workers:
            writer = repository.writer(workers)
            try:
                done = 0
                for pack in sources:
                    number = numbers[pack.digest]
                    if number is None:
                        raise CorruptedBackup(f"pack {pack.digest.hex()[:16]} is not usable any more")
                    for chunk, data in self._live_chunks(number, pack.table, plan.live):
                        writer.put(RecordKind(pack.kind), chunk, bytes(data))
                        done += len(data)
                    self.events(Progress(files=0, bytes=done))
                writer.flush()
                if packs := writer.take_packs():
                    repository.index.write(packs)
            finally:
                writer.close()

    def _live_chunks(self, number: int, table: PackTable, live: ChunkFilter) -> Iterator[tuple[bytes, memoryview]]:
        """The live chunks of one pack, each checked against its id."""
        reader, ids = self.repository.reader, self.keyring.chunk_ids
        decoded: tuple[int, memoryview] | None = None
        for chunk, ordinal, offset, length in table.chunks():
            if chunk not in live:
                continue
            if decoded is None or decoded[0] != ordinal:
                decoded = (ordinal, memoryview(reader.read_blob(number, ordinal)))
            data = decoded[1][offset : offset + length]
            if ids.of(data) != chunk:
                raise CorruptedBackup(f"chunk {chunk.hex()[:16]} holds other bytes than its id says")
            yield chunk, data

    # -- steps 3 to 5: condemn, wait, decide

    def condemn(self, plan: CollectionPlan) -> None:
        """Step 3. Raises CollectionBusy when another collector was faster: the plan is void then."""
        condemned = tuple(sorted({*plan.dead, *plan.sparse}))
        self.log.create(CollectionRecord(plan.number, self.clock.now_ns(), condemned, tuple(sorted(plan.marked))))

    def finish(self, number: int) -> tuple[VerdictRecord | None, list[str]]:
        """Steps 4 and 5: the verdict, or the sessions that it still waits for."""
        waiting = self.resolve(number, self.sessions_to_wait_for(number))
        if waiting:
            return None, waiting
        return self.log.decide(self.judge(number)), []

    def sessions_to_wait_for(self, number: int) -> tuple[str, ...]:
        """Writers announced before gc/<number> was created, and perhaps some later ones."""
        fixed = self.log.waiting(number)
        if fixed is None:
            sessions = tuple(session.id for session in running_sessions(self.backend, self.keyring))
            fixed = self.log.wait_for(WaitingRecord(number, sessions))
        return fixed.sessions

    def resolve(self, number: int, sessions: Iterable[str]) -> list[str]:
        """Those that may still commit, after every dead one was fenced."""
        running = {session.id: session for session in running_sessions(self.backend, self.keyring)}
        return [s for s in sessions if s in running and not self._has_ended(number, running[s])]

    def _has_ended(self, number: int, session: RunningSession) -> bool:
        """Whether this writer will never commit again; what is left of its announcement then goes."""
        if session.id not in set(self.snapshots.taken()):
            if not self._is_dead(session):
                return False
            if self.snapshots.fence(session.id, number, self.clock):
                self.fenced.append(session.id)
        for name in session.names:
            self.backend.delete(name)
        return True

    def _is_dead(self, session: RunningSession) -> bool:
        here, random = self.repository.process, self.repository.environment.random
        return is_dead(session, self.backend, here=here, random=random, lease=self.lease)

    def judge(self, number: int) -> VerdictRecord:
        """Step 5: condemned packs that a snapshot outside of the marked ones needs are kept.

        What a snapshot needs is found by walking it: the packs that its manifest names are those of its writer's
        view, and an earlier collection may have moved what it inherited to packs that it never looked at.
        """
        record = self.log.collection(number)
        others = [snapshot for snapshot in self.snapshots.live() if snapshot.id not in set(record.marked)]
        needed = {pack for snapshot in others for pack in snapshot.packs}
        if others:
            self.repository.reload_index()
            needed |= self._packs_holding(self._mark(others), set(record.condemned))
        deleted = tuple(pack for pack in record.condemned if pack not in needed)
        kept = tuple(pack for pack in record.condemned if pack in needed)
        return VerdictRecord(number, self.clock.now_ns(), deleted, kept)

    def _packs_holding(self, live: ChunkFilter, packs: set[bytes]) -> set[bytes]:
        """Those of the packs that hold a chunk in use, or that no segment names at the moment."""
        indexed = [pack for pack in self._indexed_packs() if pack.digest in packs]
        free = {pack.digest for pack in indexed if not any(chunk in live for chunk, _, _, _ in pack.table.chunks())}
        return packs - free

    # -- steps 6 and 7: free

    def sweep(self) -> int:
        """Delete what any verdict says, if it is still there; the bytes that this freed.

        On a disk that is too full for new segments the packs go first: the verdict keeps everybody from them, whether
        a segment names them or not.
        """
        doomed = self.log.deleted()
        try:
            self.compact(doomed)
        except InsufficientSpace:
            if not (freed := self._delete_packs(doomed)):
                raise
            self.compact(doomed)
            return freed
        return self._delete_packs(doomed)

    def _delete_packs(self, doomed: set[bytes]) -> int:
        """Step 7; the bytes that this freed.

        A store that has locked a pack takes it out of its listings, and keeps the bytes; that frees nothing yet.
        """
        freed = 0
        packs = [(digest, pack_name(kind, digest), size) for digest, (kind, size) in self._stored_packs()]
        packs = [(digest, name, size) for digest, name, size in packs if digest in doomed]
        kept = kept_by_locks(self.backend, [name for _, name, _ in packs], self.clock.now())
        for digest, name, size in packs:
            try:
                self.backend.delete(name)
            except TierNotAttached:  # the verdict stays, and whatever collection finds it attached deletes it
                self.deferred[digest] = size
                continue
            if name in kept:
                self.retained[name] = size
                self.retaining.append(kept[name])
            else:
                freed += size
        return freed

    def compact(self, doomed: set[bytes]) -> None:
        """Step 6: replace segments that name deleted packs, and many small ones by few."""
        index = self.repository.index
        index.load(deleted=doomed, condemned=self.log.condemned())
        self._refuse_damage()
        names = self._segments_to_replace(doomed)
        if not names:
            return
        for batch in batched_by_size(self._surviving(names, doomed), SEGMENT_TARGET):
            index.write(batch, supersedes=names)
        for name in names:
            self.backend.delete(index_name(name))
        index.load(deleted=doomed, condemned=self.log.condemned())

    def _segments_to_replace(self, doomed: set[bytes]) -> list[bytes]:
        sizes = {bytes.fromhex(i.name.rpartition("/")[2]): i.size for i in self.backend.list("index/")}
        index = self.repository.index
        small = [name for name, size in sizes.items() if size < SMALL_SEGMENT]
        merge = set(small) if len(small) > MANY_SEGMENTS else set()
        return [name for name in index.segments() if name in merge or not doomed.isdisjoint(index.packs_of(name))]

    def _surviving(self, names: Iterable[bytes], doomed: set[bytes]) -> Iterator[StoredPack]:
        seen: set[bytes] = set()
        for name in names:
            for pack in map(stored_pack, self._packs_in(name)):
                if pack.digest not in doomed and pack.digest not in seen:
                    seen.add(pack.digest)
                    yield pack

    def _remove_traces(self, number: int) -> None:
        """What writers and collectors left that died at a bad moment."""
        sessions = running_sessions(self.backend, self.keyring)
        self.resolve(number, [session.id for session in sessions])
        probes = list(self.backend.list("probe/"))
        now = store_time(self.backend, self.repository.environment.random) if probes else 0
        for info in probes:
            if now - info.modified_ns > self.lease // timedelta(microseconds=1) * 1000:
                self.backend.delete(info.name)

    def _remove_dropped(self) -> None:
        """The objects of dropped snapshots; their drop records stay."""
        taken = set(self.snapshots.taken())
        for ulid in self.snapshots.dropped(taken):
            self.snapshots.remove_object(ulid)


def live_bytes(table: PackTable, live: ChunkFilter) -> tuple[int, int]:
    """(raw bytes of live chunks, raw bytes of all chunks) of a pack."""
    used = total = 0
    for chunk, _, _, length in table.chunks():
        total += length + 1  # an empty chunk counts too
        if chunk in live:
            used += length + 1
    return used, total


def batched_by_size(packs: Iterable[StoredPack], target: int) -> Iterator[list[StoredPack]]:
    """Lists of packs whose tables together take about `target` bytes."""
    batch: list[StoredPack] = []
    size = 0
    for pack in packs:
        batch.append(pack)
        size += len(pack.table.member_ids) + len(pack.table.ids)
        if size >= target:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
