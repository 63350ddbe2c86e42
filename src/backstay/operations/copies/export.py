"""Snapshots on a removable medium: a small repository with the same keys, and with nothing that they do not need.

Packs, keys, records, logs of databases and manifests are the stored bytes themselves. Only index segments are made for
the medium: those of the repository name packs that are not on it; and records of gaps that are wider there. A snapshot
that is left out is on record as dropped there, so that the medium passes every verification; when it is exported later,
that record goes before.

Order: the medium's mark, keys, repo.json, packs, an index segment for them, logs, values, attestations, then each
snapshot, oldest first. What an interrupted export left is a repository with some of the snapshots; the next run sends
only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.pipeline import Workers
from backstay.errors import (
    CorruptedBackup,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    StorageMissing,
)
from backstay.operations.copies.acknowledged_gaps import carry_acknowledgements
from backstay.operations.copies.anew import rewritten_meanwhile, send_anew
from backstay.operations.copies.log_sending import damaged_subject, log_of
from backstay.operations.copies.medium import is_medium, make_medium
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.copies.value_carriage import carry_values
from backstay.operations.copies.wal_carriage import kept_meanwhile
from backstay.operations.findings import Finding
from backstay.operations.mysql import reachable as binlogs
from backstay.operations.repair.result import Findings
from backstay.operations.tiers.cold_packs import THAW_DAYS, ColdPacks, make_readable
from backstay.operations.wal.bases import base_of, is_base
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.reachable import reachable
from backstay.operations.wal.ways import ways
from backstay.repository.checking.genuine import Genuine, header_of
from backstay.repository.collection.marking import mark
from backstay.repository.common_history import require_common_keys
from backstay.repository.format import ATTESTATIONS, REPO, drop_name, pack_name, snapshot_name
from backstay.repository.index.index import PackInfo, read_segment, stored_pack
from backstay.repository.packs.pack import StoredPack
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, is_values
from backstay.repository.wal.store import object_names, owner_of, whole_of
from backstay.storage.backend import StorageBackend

READ_AHEAD: Final = 48 << 20  # bytes of packs that are read before they are sent
LEFT_OUT: Final = "not exported to this medium"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Ids of snapshots that were sent, and of those that were there; objects, some of them of logs, and bytes sent.

    `findings` are logs that are damaged and stayed behind.
    """

    exported: tuple[str, ...]
    already: tuple[str, ...]
    objects: int
    wal_objects: int
    bytes: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Pairs of ids, on the medium and here; `already` are ids of the medium whose snapshots were here.

    `findings` are WAL of the medium that is damaged.
    """

    imported: tuple[tuple[str, str], ...]
    already: tuple[str, ...]
    wal_files: int
    bytes: int
    findings: tuple[Finding, ...] = ()


def export_snapshots(
    repository: Repository,
    target: StorageBackend,
    snapshots: Sequence[Manifest],
    *,
    days: int = THAW_DAYS,
    wait: bool = True,
    events: EventSink = ignore,
) -> ExportResult:
    """Give a medium these snapshots, but for those that it has.

    Raises InvalidRequest when something else lies there, or a medium that has other keys; TierNotAttached and
    ThawPending before anything is written; CorruptedBackup for a damaged object, before any snapshot that needs it is
    sent; WAL that is damaged is a finding.
    """
    snapshots = [manifest for manifest in snapshots if not is_values(manifest)]  # values go with those that need them
    with repository.passing_unreadable(), kept_meanwhile(repository, snapshots, events):
        return _Export(repository, target, events).run(sorted(snapshots, key=lambda manifest: manifest.id), days, wait)


def import_snapshots(
    repository: Repository, medium: StorageBackend, wanted: Sequence[str] | None = None, *, events: EventSink = ignore
) -> ImportResult:
    """Bring snapshots of a medium back, all or those of these ids, but for those that the repository has.

    They are written as new snapshots: records of the repository may say that the ids and packs of the old ones are
    deleted for good. Chunks that are there already are not stored again. Raises NoRepository, InvalidRequest when it
    is the medium of another repository.
    """
    there = repository.in_store(medium)
    chosen = [manifest for manifest in there.snapshots.shown() if wanted is None or manifest.id in wanted]
    copied = copy_snapshots(there, repository, chosen, events=events)
    return ImportResult(
        imported=copied.copied,
        already=copied.already,
        wal_files=copied.wal_files,
        bytes=copied.bytes,
        findings=copied.findings,
    )


@dataclass(slots=True)
class _Needed:
    """The packs that hold the chunks it is given, of which those on the medium are preferred."""

    repository: Repository
    there: set[bytes]
    deleted: set[bytes]  # on the medium, by its own collections, and for good
    packs: dict[bytes, int] = field(default_factory=dict)  # digest: number; to be sent
    anew: dict[bytes, int] = field(default_factory=dict)  # likewise, in packs of other names
    indexed: set[bytes] = field(default_factory=set)  # of those, which a segment there names already

    def add(self, chunk: bytes) -> None:
        places = self.repository.index.find_all(chunk)
        if not places:
            self.repository.reader.place(chunk)  # raises what is to be told
        numbers = {self.repository.index.pack(place.pack).digest: place.pack for place in places}
        if not any(pack in self.there or pack in self.packs or pack in self.anew for pack in numbers):
            pack = next((pack for pack in numbers if pack not in self.deleted), next(iter(numbers)))
            (self.anew if pack in self.deleted else self.packs)[pack] = numbers[pack]


@dataclass(slots=True)
class _Export:
    repository: Repository
    target: StorageBackend
    events: EventSink
    objects: int = 0
    wal_objects: int = 0
    sent: int = 0
    damaged: set[tuple[int, str]] = field(default_factory=set)  # files of logs that are left out from there on
    findings: Findings = field(init=False)

    def __post_init__(self) -> None:
        self.findings = Findings(self.events)

    def run(self, snapshots: Sequence[Manifest], days: int, wait: bool) -> ExportResult:
        self._require_target()
        held = _sizes(self.target)
        there = self._opened() if REPO in held else None
        known = {manifest.id for manifest in there.snapshots.live()} if there is not None else set()
        missing = [manifest for manifest in snapshots if manifest.id not in known]
        needed = self._needed(there, held, missing)
        self._make_readable(needed, days, wait)
        self._send_keys()
        self._send_packs(needed, held)
        there = self._opened()
        for batch in _in_batches(self._stored_packs(needed)):
            there.index.write(batch)
        stored = send_anew(self.repository, there, needed.anew)
        self.objects, self.sent = self.objects + len(stored), self.sent + sum(pack.size for pack in stored)
        self._send_logs(there, snapshots, held)
        for manifest in snapshots:
            self._send_attestations(manifest)
        carry_values(self.repository, there, missing, self.events, intent=None)
        for manifest in missing:
            self._send_snapshot(there, manifest)
        finished(self.events, "export")
        return ExportResult(
            exported=tuple(manifest.id for manifest in missing),
            already=tuple(manifest.id for manifest in snapshots if manifest.id in known),
            objects=self.objects,
            wal_objects=self.wal_objects,
            bytes=self.sent,
            findings=tuple(self.findings.found),
        )

    def _require_target(self) -> None:
        header = header_of(self.target)
        if header is None and (is_medium(self.target) or not _sizes(self.target)):
            return
        if header != self.repository.header.encode():
            raise InvalidRequest(
                f"{self.target.url} is no place to export to",
                cause="it holds something else",
                hint="name an empty directory, or one with an earlier export of this repository",
            )
        if not is_medium(self.target):
            raise InvalidRequest(
                f"{self.target.url} is a whole copy of the repository",
                cause="an export would say of snapshots that they are left out there",
                hint="bring the copy up to date with `backstay copy --to`, or name an empty directory",
            )
        require_common_keys(self.repository.keyring, self.repository.backend.copies()[0], self.target)

    def _opened(self) -> Repository:
        there = self.repository.in_store(self.target)
        there.reload_index()
        return there

    # -- what is needed

    def _needed(self, there: Repository | None, held: dict[str, int], missing: list[Manifest]) -> _Needed:
        """The packs to send or to index there. Raises CorruptedBackup."""
        indexed = [info for _, info in there.index.packs()] if there is not None else []
        whole = {info.digest for info in indexed if held.get(pack_name(info.kind, info.digest)) == info.size}
        self.repository.reload_index()
        deleted = there.collections.deleted() | there.collections.condemned() if there is not None else set()
        needed = _Needed(self.repository, whole, deleted)
        for info in indexed:  # torn or lost there
            number = self.repository.index.number(info.digest)
            if info.digest not in whole and number is not None:
                needed.packs[info.digest] = number
                needed.indexed.add(info.digest)
        mark(missing, self.repository.reader, needed)
        return needed

    def _make_readable(self, needed: _Needed, days: int, wait: bool) -> None:
        cold = ColdPacks(self.repository)
        for number in (*needed.packs.values(), *needed.anew.values()):
            cold.need_pack(number)
        make_readable(self.repository, cold.needed(), days=days, wait=wait, events=self.events)

    # -- sending

    def _send_keys(self) -> None:
        """All keys as they are now, and repo.json after them."""
        make_medium(self.target)
        ours = {info.name for info in self.repository.backend.list("keys/")}
        for name in sorted(ours):
            self._send(name)
        # A secret that was taken away here must not open the medium any more.
        for info in list(self.target.list("keys/slots/")):
            if info.name not in ours:
                self.target.delete(info.name)
        self._send(REPO)

    def _send_packs(self, needed: _Needed, held: dict[str, int]) -> None:
        infos = [self.repository.index.pack(number) for number in needed.packs.values()]
        absent = [info for info in infos if held.get(pack_name(info.kind, info.digest)) != info.size]
        total = sum(info.size for info in absent)
        self.events(Started(operation="export", total_files=len(absent), total_bytes=total))
        with Workers(self.repository.environment.threads, "export") as workers:
            found = workers.ordered(self._read, absent, weigh=lambda info: info.size, limit=READ_AHEAD)
            for count, (info, data) in enumerate(zip(absent, found, strict=True), 1):
                self._store(pack_name(info.kind, info.digest), data, overwrite=True)  # absent there, or torn
                self.events(Progress(files=count, bytes=self.sent))

    def _read(self, info: PackInfo) -> bytes:
        return self._genuine(pack_name(info.kind, info.digest))

    def _stored_packs(self, needed: _Needed) -> Iterator[StoredPack]:
        """The tables of packs that no segment there names, out of our own. Raises StorageUnavailable."""
        left = needed.packs.keys() - needed.indexed
        for segment in self.repository.index.segments():
            if left.isdisjoint(self.repository.index.packs_of(segment)):
                continue
            for pack in read_segment(self.repository.backend, self.repository.keyring, segment).packs:
                if pack.digest in left:
                    left.discard(pack.digest)
                    yield stored_pack(pack)
        if left:
            raise rewritten_meanwhile()

    def _send_logs(self, there: Repository, snapshots: Sequence[Manifest], held: Mapping[str, int]) -> None:
        """What databases can be recovered with, also from backups that the medium has; parts go when they are whole."""
        wal = self.repository.wal
        sizes, bases = wal.objects(), [base_of(manifest) for manifest in snapshots if is_base(manifest)]
        own = {system: [base for base in bases if base.system == system] for system in {base.system for base in bases}}
        clusters = [WalCoverage.load(wal, system, segment_size=own[system][0].segment_size) for system in sorted(own)]
        wanted = {coverage.system: reachable(coverage, ways(coverage, own[coverage.system])) for coverage in clusters}
        names = dict.fromkeys(sorted({wal.binding_name(base.name) for base in bases}))
        for coverage in clusters:
            for file in wanted[coverage.system]:
                names.update(dict.fromkeys(object_names(coverage.system, file, coverage.files[file])))
        names.update(dict.fromkeys(self._binlog_names(snapshots)))
        self._send_missing(names, sizes, held)
        for coverage in clusters:
            copied = WalCoverage.load(there.wal, coverage.system, segment_size=coverage.size)
            carry_acknowledgements(coverage, copied, wanted[coverage.system])

    def _binlog_names(self, snapshots: Sequence[Manifest]) -> Iterator[str]:
        """The objects of the binary logs behind dumps, and of the names that they have."""
        for name, archive, dumps in binlogs.logged(self.repository.wal, snapshots):
            yield self.repository.wal.binding_name(name)
            for file, stored in binlogs.reachable(archive, dumps).items():
                yield from object_names(archive.system, file, stored)

    def _send_missing(self, names: Mapping[str, None], sizes: Mapping[str, int], held: Mapping[str, int]) -> None:
        absent = [name for name in names if name in sizes and held.get(name) != sizes[name]]
        self.events(Started(operation="export WAL", total_files=len(absent)))
        for count, name in enumerate(absent, 1):
            self._send_wal_object(name)
            self.events(Progress(files=count, bytes=self.sent, current=name))
        for name in held:
            if name not in sizes and whole_of(name) in names:
                self.target.delete(name)

    def _send_wal_object(self, name: str) -> None:
        """One that is absent there, or torn. A damaged one is a finding: what lies before it can still be recovered."""
        owner = owner_of(name)
        if owner is not None and (owner[0], log_of(owner[1])) in self.damaged:
            return
        try:
            try:
                data = self._genuine(name)
            except ObjectNotFound:  # a part that went since it was listed: its segment is whole by now
                whole = whole_of(name)
                if whole is None:
                    raise
                name, data = whole, self._genuine(whole)
        except CorruptedBackup as error:
            if owner is None:
                raise
            self.damaged.add((owner[0], log_of(owner[1])))
            self.findings.add("integrity", damaged_subject(*owner), str(error), error.hint)
            return
        self._store(name, data, overwrite=True)
        self.wal_objects += 1

    def _send_attestations(self, manifest: Manifest) -> None:
        """What validators say of a snapshot, which is true of the same bytes there; what only looks so stays behind."""
        for info in list(self.repository.backend.list(f"{ATTESTATIONS}{manifest.id}/")):
            with suppress(CorruptedBackup):
                self._send(info.name)

    def _send_snapshot(self, there: Repository, manifest: Manifest) -> None:
        """One snapshot; its predecessor is there, or on record as left out."""
        previous = manifest.previous
        if previous is not None and previous not in there.snapshots.taken():
            if previous in self.repository.snapshots.dropped([previous]):
                self._send(drop_name(previous))
            else:
                there.snapshots.accept_loss(previous, LEFT_OUT, self.repository.clock)
        self._send(snapshot_name(manifest.id))
        # It was left out before: we hold it, so it was never dropped. Its successors there relied on the record.
        self.target.delete(drop_name(manifest.id))

    def _send(self, name: str) -> None:
        """One small object, bit for bit."""
        self._store(name, self._genuine(name))

    def _genuine(self, name: str) -> bytes:
        try:
            data = self.repository.backend.retrieve(name)
        except ObjectUnreadable as error:
            raise CorruptedBackup.of_unreadable(error) from error
        if Genuine(self.repository).is_whole(name, data) is False:
            raise CorruptedBackup(
                f"{name} is damaged, and was not exported",
                cause="its bytes are not those that were written",
                hint="mend it with `backstay repair packs`, from a copy if there is one",
            )
        return data

    def _store(self, name: str, data: bytes, *, overwrite: bool = False) -> None:
        with suppress(ObjectExists):
            self.target.store(name, data, overwrite=overwrite)
            self.objects, self.sent = self.objects + 1, self.sent + len(data)


def _sizes(store: StorageBackend) -> dict[str, int]:
    """What lies in a store; nothing where there is no place yet."""
    try:
        return {info.name: info.size for info in store.list()}
    except StorageMissing:
        return {}


def _in_batches(packs: Iterator[StoredPack], most: int = 4096) -> Iterator[list[StoredPack]]:
    """Lists of packs, each for one index segment."""
    batch: list[StoredPack] = []
    for pack in packs:
        batch.append(pack)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
