"""Repair a repository: the index from the packs, packs from what is readable in them, snapshots without what is lost.

In this order: `repair index`, `repair packs`, `repair snapshots`. Each makes the new durable before it removes the
old, so that it may be stopped anywhere and run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.codec.digest import sha256
from backstay.core.events import EventSink, Finished, Progress, Started, Warned, ignore
from backstay.core.ids import is_digest
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound, ObjectNotFound, UnsupportedFormat
from backstay.operations.findings import Check, Finding
from backstay.operations.rewrite import LOST_SHOWN, Damage, DamageSurvey, SnapshotRewriter
from backstay.operations.verify import VerifyOptions, run_verify
from backstay.repository.blobs import BlobWriter
from backstay.repository.collector import SEGMENT_TARGET, CollectionPlan, Collector, batched_by_size
from backstay.repository.format import RecordKind, index_name, pack_name
from backstay.repository.index import IndexedPack, read_segment
from backstay.repository.pack import TRAILER_BYTES, BlobInfo, StoredPack, open_blob, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, header_epoch, open_header
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest

TAIL: Final = 64 << 10  # bytes at the end of a pack in which its table usually lies
REPAIRED: Final = "repaired"  # the tag of a snapshot without its lost files
REPLACES: Final = "repaired_from"  # the key under `consistency` that names the snapshot it stands for

Stored: TypeAlias = dict[bytes, tuple[RecordKind, int]]  # packs of the store -> kind, size


@dataclass(frozen=True, slots=True)
class LostPath:
    """One path that a snapshot no longer holds."""

    snapshot: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What a repair did; `findings` are what it could not mend, `lost` the files that are gone for good.

    `chunks_lost` counts chunks that no other pack holds, whether or not a snapshot needs them. `waiting_for` are
    writers because of which a later `gc` finishes the work.
    """

    packs_indexed: int = 0
    segments_removed: int = 0
    packs_removed: tuple[str, ...] = ()
    chunks_saved: int = 0
    chunks_lost: int = 0
    snapshots_replaced: tuple[tuple[str, str], ...] = ()
    snapshots_dropped: tuple[str, ...] = ()
    lost: tuple[LostPath, ...] = ()
    waiting_for: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything needed repair."""
        return bool(
            self.packs_indexed
            or self.segments_removed
            or self.packs_removed
            or self.snapshots_replaced
            or self.snapshots_dropped
        )


def repair_index(repository: Repository, *, events: EventSink = ignore) -> RepairResult:
    """Make the index name the packs that the store has: all of them, and no others.

    Needs nothing but the packs: they are self-describing. Packs that a collection deleted stay out, condemned ones
    stay unusable until its verdict.
    """
    return _IndexRepair(repository, events).run()


def repair_packs(
    repository: Repository, packs: Iterable[str] | None = None, *, events: EventSink = ignore
) -> RepairResult:
    """Copy what is readable in damaged packs to new ones, then delete the damaged.

    `packs` are names, digests or their beginnings; without them every pack is read to find the damaged ones. Packs
    that the store lost leave the index, so that the next backup stores their chunks again: put objects back that
    another copy has before you run this. Raises NotFound, InvalidRequest, CollectionBusy when a collector was
    faster, CorruptedBackup while the index or a manifest is damaged.
    """
    return _PackRepair(repository, events).run(None if packs is None else list(packs))


def repair_snapshots(
    repository: Repository, ids: Iterable[str] | None = None, *, events: EventSink = ignore
) -> RepairResult:
    """Accept what is lost: vanished and unreadable snapshots are dropped, others replaced by what is left of them.

    Chunks count as lost when no index segment names them, so damaged packs have to be repaired first. `ids` are
    whole ids; without them every snapshot is looked at. Raises NotFound for an id that nothing knows.
    """
    return _SnapshotRepair(repository, None if ids is None else set(ids), events).run()


@dataclass(slots=True)
class _Findings:
    """Collects what could not be mended, and tells it at once."""

    events: EventSink
    found: list[Finding] = field(default_factory=list)

    def add(self, check: Check, subject: str, error: Exception | str, hint: str = "") -> None:
        self.found.append(Finding(check=check, severity="error", subject=subject, message=str(error), hint=hint))
        self.events(Warned(message=f"{subject}: {error}"))


# -- the index


class _IndexRepair:
    """One run over all segments and packs."""

    def __init__(self, repository: Repository, events: EventSink) -> None:
        self.repository, self.events = repository, events
        self.backend, self.keyring = repository.backend, repository.keyring
        self.findings = _Findings(events)
        self.damaged: list[bytes] = []
        self.indexed = 0

    def run(self) -> RepairResult:
        log = self.repository.collections
        log.refresh()
        deleted = log.deleted()
        # Segments are read before packs are listed: a pack is stored before a segment names it, so one that is
        # named and not listed is gone.
        named = self._named_packs()
        stored = self._stored_packs()
        unnamed = {digest: found for digest, found in stored.items() if digest not in named and digest not in deleted}
        missing = named - stored.keys() - deleted
        index = self.repository.index
        for batch in batched_by_size(self._opened(unnamed), SEGMENT_TARGET):
            index.write(batch, supersedes=self.damaged)  # new first: a crash here leaves both
        for segment in self.damaged:
            self.backend.delete(index_name(segment))
        self._forget(missing)
        self.repository.reload_index()
        self.events(Finished(operation="repair index"))
        return RepairResult(
            packs_indexed=self.indexed,
            segments_removed=len(self.damaged),
            packs_removed=tuple(sorted(digest.hex() for digest in missing)),
            findings=tuple(self.findings.found),
        )

    def _named_packs(self) -> set[bytes]:
        """Every pack of the readable segments; the others go to `damaged`."""
        named: set[bytes] = set()
        for info in list(self.backend.list("index/")):
            leaf = info.name.removeprefix("index/")
            if not is_digest(leaf):
                self._add_foreign(info.name)
                continue
            segment = bytes.fromhex(leaf)
            try:
                named.update(pack.digest for pack in read_segment(self.backend, self.keyring, segment).packs)
            except ObjectNotFound:
                continue  # a collector replaced it since the listing: its packs are then found by themselves
            except CorruptedBackup:
                self.damaged.append(segment)
        return named

    def _stored_packs(self) -> Stored:
        stored: Stored = {}
        for prefix, kind in (("packs/", RecordKind.DATA_PACK), ("meta/", RecordKind.META_PACK)):
            for info in self.backend.list(prefix):
                leaf = info.name.rpartition("/")[2]
                if is_digest(leaf):
                    stored[bytes.fromhex(leaf)] = (kind, info.size)
                else:
                    self._add_foreign(info.name)
        return stored

    def _add_foreign(self, name: str) -> None:
        self.findings.add("integrity", name, "a foreign object lies in the repository", "remove it by hand")

    def _opened(self, unnamed: Stored) -> Iterator[StoredPack]:
        self.events(Started(operation="repair index", total_files=len(unnamed)))
        with Workers(self.repository.environment.threads, "repair") as workers:
            tables = workers.ordered(self._open, unnamed.items(), weigh=len, limit=32)
            for done, pack in enumerate(tables, 1):
                if pack is not None:
                    self.indexed += 1
                    yield pack
                self.events(Progress(files=done, bytes=0))

    def _open(self, item: tuple[bytes, tuple[RecordKind, int]]) -> StoredPack | None:
        digest, (kind, size) = item
        try:
            return self._read_table(digest, kind, size)
        except ObjectNotFound:
            return None  # a collector deleted it since the listing
        except (CorruptedBackup, UnsupportedFormat) as error:
            hint = "what lies in it is lost, unless another copy has this object; `gc` removes it"
            self.findings.add("integrity", pack_name(kind, digest), error, hint)
            return None

    def _read_table(self, digest: bytes, kind: RecordKind, size: int) -> StoredPack:
        """A pack's own table, by reading its two ends."""
        if size < HEADER_BYTES + TRAILER_BYTES:
            raise CorruptedBackup("a pack is cut short", cause=f"it has {size} bytes")
        name, tail_bytes = pack_name(kind, digest), min(size, TAIL)
        header = self.backend.retrieve(name, start=0, length=HEADER_BYTES)
        epoch = header_epoch(header, kind, self.keyring.repository)
        tail = self.backend.retrieve(name, start=size - tail_bytes, length=tail_bytes)
        wanted = read_footer_length(tail[-TRAILER_BYTES:], size) + TRAILER_BYTES
        if wanted > len(tail):
            tail = self.backend.retrieve(name, start=size - wanted, length=wanted)
        table = open_table(header, tail[-wanted:-TRAILER_BYTES], size, self.keyring.key(epoch))
        return StoredPack(digest, kind, size, epoch, table)

    def _forget(self, missing: set[bytes]) -> None:
        """Packs that the store lost leave the index: else every backup would count on them."""
        for digest in sorted(missing):
            self.findings.add(
                "integrity",
                digest.hex(),
                "this pack is missing; the index no longer names it",
                "put it back from a copy and run `repair index` again, or go on with `repair snapshots`",
            )
        if missing:
            Collector(self.repository).compact(missing)


# -- packs


class _PackRepair:
    """One run: salvage, then a collection of its own that condemns the damaged packs."""

    def __init__(self, repository: Repository, events: EventSink) -> None:
        self.repository, self.events = repository, events
        self.findings = _Findings(events)
        self.saved = 0
        self.unread: list[bytes] = []
        self.lost: set[bytes] = set()
        self.removed: list[str] = []
        self.waiting_for: list[str] = []

    def run(self, wanted: list[str] | None) -> RepairResult:
        """Order: salvaged packs, their segment, gc/<n> with the damaged ones, and then as in every collection.

        The number n is read before anything is written, so that a collector that took the new packs for orphans
        makes this run stop with CollectionBusy before anything is deleted.
        """
        repository = self.repository
        collector = Collector(repository, events=self.events)
        repository.reload_index()
        self._refuse_damaged_index()
        self._finish_earlier(collector)
        number = repository.collections.last + 1
        marked = tuple(snapshot.id for snapshot in repository.snapshots.live())
        damaged = self._damaged(wanted)
        if not damaged:
            return self._result()
        self._salvage(damaged)
        self.lost = {chunk for chunk in self.unread if repository.index.find(chunk) is None}
        dead = {pack.digest: (RecordKind(pack.kind), pack.size) for pack in damaged}
        collector.condemn(CollectionPlan(number, marked, dead))
        self._finish(collector, number)
        collector.sweep()
        repository.reload_index()
        self.events(Finished(operation="repair packs"))
        return self._result()

    def _result(self) -> RepairResult:
        return RepairResult(
            packs_removed=tuple(self.removed),
            chunks_saved=self.saved,
            chunks_lost=len(self.lost),
            waiting_for=tuple(self.waiting_for),
            findings=tuple(self.findings.found),
        )

    def _finish_earlier(self, collector: Collector) -> None:
        """What an interrupted repair condemned; a snapshot committed later might name it, and keep it."""
        numbers = self.repository.collections.open_numbers()
        for number in numbers:
            self._finish(collector, number)
        if numbers:
            collector.sweep()
            self.repository.reload_index()

    def _finish(self, collector: Collector, number: int) -> None:
        verdict, waiting = collector.finish(number)
        self.waiting_for += waiting
        if verdict is None:
            return
        self.removed += [digest.hex() for digest in verdict.deleted]
        for digest in verdict.kept:
            message = "this pack stays, because a backup that ran meanwhile relies on it"
            self.findings.add("integrity", digest.hex(), message, "run the repair once more")

    def _refuse_damaged_index(self) -> None:
        for name, error in self.repository.index.damaged:
            raise CorruptedBackup(
                "packs are not repaired while the index is damaged",
                cause=f"{name}: {error}",
                hint="run `backstay repair index` first",
            )

    def _damaged(self, wanted: list[str] | None) -> list[IndexedPack]:
        digests = self._found() if wanted is None else {self._resolve(text) for text in wanted}
        packs: dict[bytes, IndexedPack] = {}
        for segment in self.repository.index.segments() if digests else ():
            record = read_segment(self.repository.backend, self.repository.keyring, segment)
            packs |= {pack.digest: pack for pack in record.packs if pack.digest in digests}
        return [packs[digest] for digest in sorted(packs)]

    def _found(self) -> set[bytes]:
        """Every pack that the index names and that is not what it should be, by reading all."""
        options = VerifyOptions(checks=("integrity",), read_data=1.0)
        report = run_verify(self.repository, options=options, events=self.events)
        wrong = {finding.subject for finding in report.findings}
        known = [info for _, info in self.repository.index.packs()]
        return {info.digest for info in known if pack_name(info.kind, info.digest) in wrong}

    def _resolve(self, text: str) -> bytes:
        start = text.rpartition("/")[2].lower()
        found = [info.digest for _, info in self.repository.index.packs() if info.digest.hex().startswith(start)]
        if not found or not start:
            raise NotFound(
                f"the index names no pack {text}", hint="run `backstay verify --read-data` to see what is damaged"
            )
        if len(found) > 1:
            raise InvalidRequest(f"{text} stands for {len(found)} packs", hint="give more of the digest")
        return found[0]

    def _salvage(self, damaged: list[IndexedPack]) -> None:
        """Store everything readable anew. The damaged packs are out of the index from here on."""
        repository = self.repository
        doomed = {pack.digest for pack in damaged}
        self.events(
            Started(operation="salvage", total_files=len(damaged), total_bytes=sum(pack.size for pack in damaged))
        )
        repository.index.load(repository.collections.excluded() | doomed)
        with Workers(repository.environment.threads, "seal") as workers:
            writer = repository.writer(workers)
            try:
                done = 0
                for count, pack in enumerate(damaged, 1):
                    self._salvage_one(pack, writer)
                    done += pack.size
                    self.events(Progress(files=count, bytes=done))
                writer.flush()
                if packs := writer.take_packs():
                    repository.index.write(packs)
            finally:
                writer.close()

    def _salvage_one(self, pack: IndexedPack, writer: BlobWriter) -> None:
        kind = RecordKind(pack.kind)
        name = pack_name(kind, pack.digest)
        try:
            data = memoryview(self.repository.backend.retrieve(name))
        except ObjectNotFound:
            data = memoryview(b"")
        if sha256(data) == pack.digest:
            self.events(Warned(message=f"{name} is what its name says; it is written anew all the same"))
        for chunk, raw in _readable(self.repository, pack, data, self.unread):
            writer.put(kind, chunk, bytes(raw))
            self.saved += 1


def _readable(
    repository: Repository, pack: IndexedPack, data: memoryview, unread: list[bytes]
) -> Iterator[tuple[bytes, memoryview]]:
    """Every chunk of a pack that still decodes to what its id says; the ids of the others are added to `unread`."""
    ids = repository.keyring.chunk_ids
    blobs = list(pack.table.blobs())
    decoded: tuple[int, memoryview | None] = (-1, None)
    for chunk, ordinal, offset, length in pack.table.chunks():
        if decoded[0] != ordinal:
            decoded = (ordinal, _decoded(repository, pack, data, blobs[ordinal]))
        raw = decoded[1]
        if raw is None or ids.of(raw[offset : offset + length]) != chunk:
            unread.append(chunk)
        else:
            yield chunk, raw[offset : offset + length]


def _decoded(repository: Repository, pack: IndexedPack, data: memoryview, blob: BlobInfo) -> memoryview | None:
    header = bytes(data[:HEADER_BYTES])
    try:
        if header_epoch(header, RecordKind(pack.kind), repository.keyring.repository) != pack.epoch:
            return None
        cipher = open_header(header, repository.keyring.key(pack.epoch))
        return memoryview(open_blob(cipher, header, blob, data[blob.offset : blob.offset + blob.stored]))
    except (CorruptedBackup, UnsupportedFormat):
        return None


# -- snapshots


class _SnapshotRepair:
    """One run over all snapshots, or the wanted ones."""

    def __init__(self, repository: Repository, wanted: set[str] | None, events: EventSink) -> None:
        self.repository, self.wanted, self.events = repository, wanted, events
        self.snapshots, self.clock = repository.snapshots, repository.clock
        self.findings = _Findings(events)
        self.dropped: list[str] = []
        self.replaced: list[tuple[str, str]] = []
        self.lost: list[LostPath] = []
        self.live: list[Manifest] = []  # oldest first, new ones included

    def run(self) -> RepairResult:
        index = repair_index(self.repository, events=self.events)
        unreadable: list[tuple[str, CorruptedBackup]] = []
        live = self.snapshots.live(on_damage=lambda name, error: unreadable.append((name, error)))
        self.live = list(live)
        self._check_wanted(live, unreadable)
        for name, error in unreadable:
            self._drop_unreadable(name, error)
        self._accept_gaps(live)
        survey = DamageSurvey(self.repository)
        self.events(Started(operation="repair snapshots", total_files=len(live)))
        for done, manifest in enumerate(live, 1):
            if self._is_wanted(manifest.id) and (damage := survey.of(manifest)):
                self._replace(manifest, damage)
            self.events(Progress(files=done, bytes=0, current=manifest.id))
        self.events(Finished(operation="repair snapshots"))
        return RepairResult(
            packs_indexed=index.packs_indexed,
            segments_removed=index.segments_removed,
            packs_removed=index.packs_removed,
            snapshots_replaced=tuple(self.replaced),
            snapshots_dropped=tuple(self.dropped),
            lost=tuple(self.lost),
            findings=(*index.findings, *self.findings.found),
        )

    def _is_wanted(self, ulid: str) -> bool:
        return self.wanted is None or ulid in self.wanted

    def _check_wanted(self, live: list[Manifest], unreadable: list[tuple[str, CorruptedBackup]]) -> None:
        known = {m.id for m in live} | {m.previous for m in live} | {name.rpartition("/")[2] for name, _ in unreadable}
        for ulid in sorted((self.wanted or set()) - known):
            raise NotFound(f"there is no snapshot {ulid}")

    def _accept_gaps(self, live: list[Manifest]) -> None:
        """Snapshots that a later one follows, and that vanished without a record."""
        known = set(self.snapshots.taken()) | self.snapshots.dropped()
        gone = {m.previous for m in live if m.previous is not None} - known
        for ulid in sorted(gone):
            if self._is_wanted(ulid):
                self.snapshots.accept_loss(ulid, "its object was lost", self.clock)
                self.dropped.append(ulid)

    def _drop_unreadable(self, name: str, error: CorruptedBackup) -> None:
        ulid = name.rpartition("/")[2]
        if not self._is_wanted(ulid):
            return
        if self.wanted is None and self._lacks_key(name):
            hint = "put keys/epochs/ back from a copy; to give the snapshot up all the same, name it"
            self.findings.add("signature", name, error, hint)
            return
        self.snapshots.accept_loss(ulid, f"it could not be read: {error}", self.clock)
        self.dropped.append(ulid)
        self.events(Warned(message=f"{name} cannot be read and is dropped: {error}"))

    def _lacks_key(self, name: str) -> bool:
        """Whether the manifest may be whole, and only the key of its epoch is missing."""
        keyring = self.repository.keyring
        data = self.repository.backend.retrieve(name)
        try:
            epoch = header_epoch(data, RecordKind.SNAPSHOT, keyring.repository)
        except (CorruptedBackup, UnsupportedFormat):
            return False
        # An epoch far beyond the newest one never was: then its number itself is damaged.
        return epoch <= keyring.current.number + 1 and epoch not in {known.number for known in keyring.epochs}

    def _replace(self, old: Manifest, damage: Damage) -> None:
        """Order: packs, index, new snapshot, drop of the old one; a crash before the drop leaves both."""
        done = next((m for m in self.live if m.consistency.get(REPLACES) == old.id), None)
        if done is not None:
            self._drop_replaced(old, done.id)
            return
        self.lost += [LostPath(old.id, printable(path)) for path in damage.lost]
        if damage.nothing_left:
            self.snapshots.drop(old.id, "nothing of it could be read", self.clock)
            self.dropped.append(old.id)
            return
        new = self._rewrite(old, damage)
        self.live.append(new)
        self._drop_replaced(old, new.id)

    def _drop_replaced(self, old: Manifest, new: str) -> None:
        self.snapshots.drop(old.id, f"replaced by {new}, which lacks the lost files", self.clock)
        self.replaced.append((old.id, new))

    def _rewrite(self, old: Manifest, damage: Damage) -> Manifest:
        repository = self.repository
        with repository.begin_session() as session, Workers(repository.environment.threads, "seal") as workers:
            session.start_heartbeat()
            writer = repository.writer(workers)
            try:
                rewritten = SnapshotRewriter(repository, writer, old, damage).run()
                writer.flush()
                packs = writer.take_packs()
                if packs:
                    repository.index.write(packs)
            finally:
                writer.close()
            newest = [m for m in self.live if m.source == old.source and m.host == old.host][-1]
            manifest = rewritten.manifest(
                old,
                id=session.id,
                recorded_ns=self.clock.now_ns(),
                previous=newest.id,
                previous_digest=self.snapshots.digest(newest.id),
                packs=tuple(sorted({pack.digest for pack in packs} | rewritten.packs)),
                slots=repository.slots.digests(),
                tags=(*(tag for tag in old.tags if tag != REPAIRED), REPAIRED),
                description=_described(old, damage),
                consistency={**old.consistency, REPLACES: old.id},
            )
            self.snapshots.commit(manifest)
        return manifest


def _described(old: Manifest, damage: Damage) -> str:
    """The old description, with what was left out."""
    shown = ", ".join(printable(path) for path in damage.lost[:LOST_SHOWN])
    more = f" and {len(damage.lost) - LOST_SHOWN} more" if len(damage.lost) > LOST_SHOWN else ""
    note = f"repaired from {old.id}; left out: {shown}{more}" if damage.lost else f"repaired from {old.id}"
    return f"{old.description} ({note})" if old.description else note


__all__ = [
    "LostPath",
    "RepairResult",
    "repair_index",
    "repair_packs",
    "repair_snapshots",
]
