"""Repair packs: what is readable in damaged ones goes to new ones, which take their place."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.codec.digest import sha256
from backstay.core.events import EventSink, Progress, Started, Warned, finished
from backstay.core.pipeline import Workers
from backstay.errors import (
    BackstayError,
    CollectionBusy,
    CorruptedBackup,
    InvalidRequest,
    NotFound,
    ObjectNotFound,
    ObjectUnreadable,
    UnsupportedFormat,
)
from backstay.operations.repair.result import Findings, RepairResult
from backstay.operations.tiers.cold_packs import make_packs_readable
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.checking.packs import table_within
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.collection.segments import indexed_packs
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.index.index import IndexedPack, stored_pack
from backstay.repository.packs.pack import BlobInfo, StoredPack, open_blob
from backstay.repository.records import HEADER_BYTES, header_epoch, open_header
from backstay.repository.repository import Repository


class PackRepair:
    """One run: salvage, then a collection of its own that condemns the damaged packs."""

    def __init__(self, repository: Repository, events: EventSink) -> None:
        self.repository, self.events = repository, events
        self.findings = Findings(events)
        self.saved = 0
        self.unread: list[bytes] = []
        self.lost: set[bytes] = set()
        self.removed: list[str] = []
        self.waiting_for: list[str] = []

    def run(self, wanted: list[str] | None) -> RepairResult:
        """Order: salvaged packs, their segment, gc/<n> with the damaged ones, and then as in every collection.

        The number n is read after what takes long, and before anything is written, so that a collector that took the
        new packs for orphans makes this run stop with CollectionBusy before anything is deleted. Packs of which
        something is lost go last, and without a verdict: that would forbid them for good, also where a copy has them
        whole, and backups would build on snapshots that need them.
        """
        repository = self.repository
        collector = Collector(repository, events=self.events)
        repository.reload_index()
        self._refuse_damaged_index()
        self._finish_earlier(collector)
        damaged = self._damaged(wanted)
        if not damaged:
            collector.deletions.require_none_refused()
            return self._result()
        number = repository.collections.last + 1
        marked = self._marked()
        names = [pack_name(RecordKind(pack.kind), pack.digest) for pack in damaged]
        make_packs_readable(repository, names, events=self.events)
        self._salvage(damaged)
        self.lost = {chunk for chunk in self.unread if repository.index.find_reusable(chunk) is None}
        lossy = [pack for pack in damaged if any(chunk in self.lost for chunk, *_ in pack.table.chunks())]
        dead = {pack.digest: (RecordKind(pack.kind), pack.size) for pack in damaged}
        for pack in lossy:
            del dead[pack.digest]
        collector.condemn(CollectionPlan(number, marked, dead))
        self._finish(collector, number)
        collector.sweep()
        self._give_up(lossy, collector)
        collector.deletions.require_none_refused()
        repository.reload_index()
        finished(self.events, "repair packs")
        return self._result()

    def _result(self) -> RepairResult:
        return RepairResult(
            packs_removed=tuple(self.removed),
            chunks_saved=self.saved,
            chunks_lost=len(self.lost),
            waiting_for=tuple(self.waiting_for),
            findings=tuple(self.findings.found),
        )

    def _marked(self) -> tuple[str, ...]:
        """Every snapshot, readable or not: none needs the damaged packs when what they hold has been salvaged."""
        unreadable: list[str] = []

        def skip(name: str, error: BackstayError) -> None:
            if name.startswith("snapshots/"):
                unreadable.append(name.removeprefix("snapshots/"))
                self.events(Warned(message=f"{name} is passed over, and left to `backstay repair snapshots`: {error}"))

        live = self.repository.snapshots.live(on_damage=skip)
        return tuple(sorted({*unreadable, *(snapshot.id for snapshot in live)}))

    def _finish_earlier(self, collector: Collector) -> None:
        """What an interrupted repair condemned; a snapshot committed later might name it, and keep it.

        None of it counts as this run's: a collection may have condemned it, and what is kept is looked at again.
        """
        numbers = self.repository.collections.open_numbers()
        for number in numbers:
            collector.finish(number)
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

    def _give_up(self, packs: list[IndexedPack], collector: Collector) -> None:
        """Remove packs as if the store had lost them: backups store anew what they held, and copies bring them back."""
        for pack in packs:
            if collector.deletions.delete(pack_name(RecordKind(pack.kind), pack.digest)):
                self.removed.append(pack.digest.hex())
        if packs:
            collector.compact({pack.digest for pack in packs})

    def _refuse_damaged_index(self) -> None:
        self.repository.collections.refuse_damage()
        for name, error in self.repository.index.damaged:
            if isinstance(error, ObjectUnreadable):  # nothing to repair: the disk may give it again
                raise error
            raise CorruptedBackup(
                "packs are not repaired while the index is damaged",
                cause=f"{name}: {error}",
                hint="run `backstay repair index` first",
            )

    def _damaged(self, wanted: list[str] | None) -> list[IndexedPack]:
        digests = self._found() if wanted is None else {self._resolve(text) for text in wanted}
        if not digests:
            return []
        self.repository.reload_index()  # a collection may have run while everything was read
        digests -= self.repository.collections.deleted()
        packs = {pack.digest: pack for pack in indexed_packs(self.repository) if pack.digest in digests}
        if digests - packs.keys():
            raise CollectionBusy(
                "a collection replaces the index at the moment",
                cause=f"no segment names {min(digests - packs.keys()).hex()[:16]}",
                hint="run `backstay repair packs` again when it has finished",
            )
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
                f"the index names no pack {text}",
                cause="packs are named by the SHA-256 of what they held when they were stored",
                hint="run `backstay verify --read-data` to see what is damaged",
            )
        if len(found) > 1:
            raise InvalidRequest(
                f"{text} stands for {len(found)} packs", cause="their names begin alike", hint="give more of the digest"
            )
        return found[0]

    def _salvage(self, damaged: list[IndexedPack]) -> None:
        """Store everything readable anew; from here on nothing is built upon the damaged packs."""
        repository = self.repository
        doomed = {pack.digest for pack in damaged}
        self.events(
            Started(operation="salvage", total_files=len(damaged), total_bytes=sum(pack.size for pack in damaged))
        )
        repository.index.load(
            deleted=repository.collections.deleted(), condemned=repository.collections.condemned() | doomed
        )
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
        for chunk, raw in _readable(self.repository, stored_pack(pack), data, self.unread):
            writer.put(kind, chunk, bytes(raw))
            self.saved += 1
        if sha256(data) != pack.digest:
            self._salvage_strange(data, writer)

    def _salvage_strange(self, data: memoryview, writer: BlobWriter) -> None:
        """Another pack may lie under this name, and nowhere else: what its own table names is saved as well."""
        for kind in (RecordKind.DATA_PACK, RecordKind.META_PACK):
            try:
                pack = table_within(data, self.repository.keyring, kind)
            except (CorruptedBackup, UnsupportedFormat):
                continue
            for chunk, raw in _readable(self.repository, pack, data, []):
                if not writer.has(chunk):
                    writer.put(kind, chunk, bytes(raw))
                    self.saved += 1


def _readable(
    repository: Repository, pack: StoredPack, data: memoryview, unread: list[bytes]
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


def _decoded(repository: Repository, pack: StoredPack, data: memoryview, blob: BlobInfo) -> memoryview | None:
    header = bytes(data[:HEADER_BYTES])
    try:
        if header_epoch(header, RecordKind(pack.kind), repository.keyring.repository) != pack.epoch:
            return None
        cipher = open_header(header, repository.keyring.key(pack.epoch))
        return memoryview(open_blob(cipher, header, blob, data[blob.offset : blob.offset + blob.stored]))
    except (CorruptedBackup, UnsupportedFormat):
        return None
