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

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial

from backstay.core.events import EventSink, Warned, ignore
from backstay.core.quantities import format_size
from backstay.errors import BackstayError, CollectionBusy, InsufficientSpace, ObjectNotFound, TierNotAttached
from backstay.repository.checking.values import refuse_lost_values
from backstay.repository.collection import reserve
from backstay.repository.collection.compaction import compact
from backstay.repository.collection.deleting import Deletions
from backstay.repository.collection.garbage import Garbage
from backstay.repository.collection.plan import CollectionPlan, CollectionResult
from backstay.repository.collection.rewriting import rewrite
from backstay.repository.collection.segments import indexed_packs, refuse_damage
from backstay.repository.format import ATTESTATIONS, pack_name, snapshot_name
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.logs.collections import CollectionLog, CollectionRecord, VerdictRecord, WaitingRecord
from backstay.repository.logs.tiers import refuse_cold_tier
from backstay.repository.packs.stored import stored_packs
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import LEASE, RunningSession, is_dead, running_sessions
from backstay.storage.locking import kept_by_locks
from backstay.storage.retention import LockState
from backstay.storage.sweeping import store_time


class Collector:
    """One run of garbage collection on a repository."""

    def __init__(self, repository: Repository, *, lease: timedelta = LEASE, events: EventSink = ignore) -> None:
        self.repository = repository
        self.backend, self.keyring, self.clock = repository.backend, repository.keyring, repository.clock
        self.snapshots = repository.snapshots
        self.log: CollectionLog = repository.collections
        self.lease = lease
        self.events = events
        self.garbage = Garbage(repository, events)
        self.deletions = Deletions(self.backend)
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
        stored = dict(stored_packs(self.backend))
        self.repository.reload_index()
        refuse_damage(self.repository)
        refuse_lost_values(self.repository)
        live = self.garbage.live_snapshots(bool(stored), allow_empty=allow_empty)
        plan.marked = tuple(snapshot.id for snapshot in live)
        plan.total_packs, plan.total_bytes = len(stored), sum(size for _, size in stored.values())
        plan.live = self.garbage.mark(live)
        self.garbage.classify(plan, stored)
        return plan

    def execute(self, plan: CollectionPlan) -> CollectionResult:
        """Carry a plan out as far as running writers allow; the rest is done by the next collection.

        What the store refuses to delete is in the result. Raises InvalidRequest in a store that is the cold tier of a
        repository too.
        """
        refuse_cold_tier(self.backend)
        self.repository.require_fit()
        swept = self.backend.sweep_temporaries(self.lease.total_seconds())
        if plan.sparse:
            self._rewrite_if_room(plan)
        # What follows writes little and frees much. Copies, which may be large, must not take the room for it.
        frees = bool(plan.dead or plan.sparse or plan.unfinished)
        with reserve.given_up(self.repository, self.deletions.delete) if frees else nullcontext():
            if plan.dead or plan.sparse:
                self.condemn(plan)
            results = [self.finish(number) for number in [*plan.unfinished, *self._own(plan)]]
            self._remove_dropped()
            self._remove_traces(plan.number)
            freed = self.sweep()
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
            refused=self.deletions.refused,
        )

    def _retained_until(self) -> datetime | None:
        ends = [state.until for state in self.retaining if state.until is not None and not state.held]
        return max(ends) if ends and len(ends) == len(self.retaining) else None

    def _own(self, plan: CollectionPlan) -> list[int]:
        return [plan.number] if plan.dead or plan.sparse else []

    # -- step 2: copies

    def _rewrite_if_room(self, plan: CollectionPlan) -> None:
        """Copy what lives in sparse packs; on a full disk free what is dead first, and leave that to a later run.

        What was copied until then is in no segment: garbage, as after a crash at this place. The reserve stays: if it
        were too small for the copies, nothing could be freed in its room any more.
        """
        try:
            self._rewrite(plan)
        except InsufficientSpace as error:
            size = format_size(plan.rewritten_bytes)
            needed = f"before more is freed, up to {size} that are in use must be copied"
            hint = f"make {size} of room in another way, or delete more snapshots, then run `backstay gc` again"
            if not plan.dead and not plan.unfinished:
                raise type(error)(
                    "there is no room to collect what is left", cause=f"{needed}: {error}", hint=hint
                ) from error
            plan.sparse = {}
            self.events(Warned(message=f"only what is in no use is freed; {needed}, and {error}: {hint}"))

    def _rewrite(self, plan: CollectionPlan) -> None:
        """Raises CollectionBusy when another collector was faster, and has deleted what was to be copied."""
        try:
            rewrite(self.repository, plan, self.events)
        except ObjectNotFound as error:
            self.log.refresh()
            if self.log.last < plan.number:
                raise
            raise CollectionBusy("another collector was faster", cause=f"it deleted {error.name}") from error

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
            self.deletions.delete(name)
        return True

    def _is_dead(self, session: RunningSession) -> bool:
        here, random = self.repository.process, self.repository.environment.random
        return is_dead(session, self.backend, here=here, random=random, lease=self.lease)

    def judge(self, number: int) -> VerdictRecord:
        """Step 5: condemned packs that a snapshot outside of the marked ones needs are kept.

        What a snapshot needs is found by walking it: the packs that its manifest names are those of its writer's
        view, and an earlier collection may have moved what it inherited to packs that it never looked at.
        """
        refuse_lost_values(self.repository)
        record = self.log.collection(number)
        marked = set(record.marked)

        def refuse_unless_marked(name: str, error: BackstayError) -> None:
            if name.startswith("snapshots/") and name.removeprefix("snapshots/") not in marked:
                raise error  # a drop that cannot be read drops nothing

        others = [one for one in self.snapshots.live(on_damage=refuse_unless_marked) if one.id not in marked]
        needed = {pack for snapshot in others for pack in snapshot.packs}
        if others:
            self.repository.reload_index()
            needed |= self._packs_holding(self.garbage.mark(others), set(record.condemned))
        deleted = tuple(pack for pack in record.condemned if pack not in needed)
        kept = tuple(pack for pack in record.condemned if pack in needed)
        return VerdictRecord(number, self.clock.now_ns(), deleted, kept)

    def _packs_holding(self, live: ChunkFilter, packs: set[bytes]) -> set[bytes]:
        """Those of the packs that hold a chunk in use, or that no segment names at the moment."""
        indexed = [pack for pack in indexed_packs(self.repository) if pack.digest in packs]
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
        packs = [(digest, pack_name(kind, digest), size) for digest, (kind, size) in stored_packs(self.backend)]
        packs = [(digest, name, size) for digest, name, size in packs if digest in doomed]
        kept = kept_by_locks(self.backend, [name for _, name, _ in packs], self.clock.now())
        gone: dict[bytes, int] = {}
        for digest, name, size in packs:
            try:
                if not self.deletions.delete(name):
                    continue
            except TierNotAttached:  # the verdict stays, and whatever collection finds it attached deletes it
                self.deferred[digest] = size
                continue
            if name in kept:
                self.retained[name] = size
                self.retaining.append(kept[name])
            else:
                gone[digest] = size
        return sum(gone.values()) - self._still_there(gone)

    def _still_there(self, gone: Mapping[bytes, int]) -> int:
        """Bytes of packs that a listing shows after their deletion: one for all, where each could be asked about."""
        left = [gone[digest] for digest, _ in stored_packs(self.backend) if digest in gone] if gone else []
        if left:
            told = f"{len(left)} packs are still there although the store said that they were deleted"
            self.events(Warned(message=f"{told}; the next `backstay gc` tries it again"))
        return sum(left)

    def compact(self, doomed: set[bytes]) -> None:
        """Step 6."""
        compact(self.repository, doomed, self.deletions.delete)

    def _remove_traces(self, number: int) -> None:
        """What writers and collectors left that died at a bad moment."""
        sessions = running_sessions(self.backend, self.keyring)
        self.resolve(number, [session.id for session in sessions])
        probes = list(self.backend.list("probe/"))
        now = store_time(self.backend, self.repository.environment.random) if probes else 0
        for info in probes:
            if now - info.modified_ns > self.lease // timedelta(microseconds=1) * 1000:
                self.deletions.delete(info.name)

    def _remove_dropped(self) -> None:
        """The objects of dropped snapshots, after what attests them; their drop records stay."""
        refuse_lost_values(self.repository)
        attested = set()
        for ulid in self.snapshots.dropped(self.repository.attestations.snapshots()):
            forget = partial(self.repository.attestations.forget, ulid)
            if not self.deletions.attempt(f"{ATTESTATIONS}{ulid}/", forget):
                attested.add(ulid)
        taken = set(self.snapshots.taken()) - attested
        for ulid in self.snapshots.dropped(taken):
            self.deletions.attempt(snapshot_name(ulid), partial(self.snapshots.remove_object, ulid))
