"""Repair the index: segments written anew from the packs' own tables."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from backstay.core.events import EventSink, Progress, Started, Warned, finished
from backstay.core.ids import is_digest
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, ObjectNotFound, UnsupportedFormat
from backstay.operations.repair.result import Findings, RepairResult
from backstay.operations.tiers.cold_packs import make_packs_readable
from backstay.repository.checking.packs import read_table
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.compaction import SEGMENT_TARGET, batched_by_size
from backstay.repository.format import RecordKind, index_name, pack_name
from backstay.repository.index.index import read_segment
from backstay.repository.packs.pack import StoredPack
from backstay.repository.repository import Repository

Stored: TypeAlias = dict[bytes, tuple[RecordKind, int]]  # packs of the store -> kind, size


class IndexRepair:
    """One run over all segments and packs."""

    def __init__(self, repository: Repository, events: EventSink) -> None:
        self.repository, self.events = repository, events
        self.backend, self.keyring = repository.backend, repository.keyring
        self.findings = Findings(events)
        self.damaged: list[bytes] = []
        self.mended: list[str] = []
        self.indexed = 0

    def run(self) -> RepairResult:
        # Segments are read before packs are listed: a pack is stored before a segment names it, so one that is
        # named and not listed is gone. Verdicts are read last, because they come before what they delete.
        named = self._named_packs()
        stored = self._stored_packs()
        self._mend_collections(named | stored.keys())
        deleted = self.repository.collections.deleted()
        unnamed = {digest: found for digest, found in stored.items() if digest not in named and digest not in deleted}
        missing = named - stored.keys() - deleted
        names = [pack_name(kind, digest) for digest, (kind, _) in unnamed.items()]
        make_packs_readable(self.repository, names, events=self.events)
        index = self.repository.index
        for batch in batched_by_size(self._opened(unnamed), SEGMENT_TARGET):
            index.write(batch, supersedes=self.damaged)  # new first: a crash here leaves both
        for segment in self.damaged:
            self.backend.delete(index_name(segment))
        self._forget(missing)
        self.repository.reload_index()
        finished(self.events, "repair index")
        return RepairResult(
            packs_indexed=self.indexed,
            collections_mended=tuple(self.mended),
            segments_removed=len(self.damaged),
            packs_removed=tuple(sorted(digest.hex() for digest in missing)),
            findings=tuple(self.findings.found),
        )

    def _mend_collections(self, packs: AbstractSet[bytes]) -> None:
        log = self.repository.collections
        log.refresh()
        self.mended = log.mend(packs, self.repository.clock.now_ns())
        for name in self.mended:
            self.events(
                Warned(message=f"{name} could not be read: its collection is decided anew, and deletes nothing")
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
            return read_table(self.backend, self.keyring, kind, digest, size)
        except ObjectNotFound:
            return None  # a collector deleted it since the listing
        except (CorruptedBackup, UnsupportedFormat) as error:
            hint = "what lies in it is lost, unless another copy has this object; `gc` removes it"
            self.findings.add("integrity", pack_name(kind, digest), error, hint)
            return None

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
            collector = Collector(self.repository)
            collector.compact(missing)
            collector.deletions.require_none_refused()  # they name what is missing
