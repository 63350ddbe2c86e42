"""What is garbage: packs in which nothing is in use, and those in which so little is that the rest is worth a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstay.core.events import EventSink, Progress, Started, Warned
from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, HoldViolation, ObjectFrozen, ObjectNotFound, TierNotAttached
from backstay.repository.collection.marking import mark
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.collection.segments import indexed_packs
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.packs.pack import TRAILER_BYTES, PackTable, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, header_epoch
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

WORTH_KEEPING: Final = 0.6  # packs with a smaller part of live bytes are rewritten
SMALL_PACK: Final = 8 << 20  # bytes; many packs below this size are rewritten into few
MANY_SMALL: Final = 16


@dataclass(frozen=True, slots=True)
class Garbage:
    """The search for it; changes nothing."""

    repository: Repository
    events: EventSink

    def live_snapshots(self, has_packs: bool, *, allow_empty: bool) -> list[Manifest]:
        """Those that are walked. Raises HoldViolation and CorruptedBackup where some may be out of sight."""
        live = self.repository.snapshots.live()
        if not live and has_packs and not allow_empty:
            raise HoldViolation(
                "the repository shows no snapshot, so nothing is collected",
                cause="that all are gone on purpose, or cannot be seen, looks the same from here",
                hint="if every snapshot was deleted on purpose, say so with --allow-empty",
            )
        lost = {s.previous for s in live if s.previous is not None} - set(self.repository.snapshots.taken())
        lost -= self.repository.snapshots.dropped(lost)
        if lost:
            raise CorruptedBackup(
                "nothing is collected while a snapshot is missing",
                cause=f"{min(lost)} is gone, and no record says that it was deleted",
                hint="restore the object from a copy, or accept the loss with `backstay repair snapshots`",
            )
        return live

    def mark(self, live: list[Manifest]) -> ChunkFilter:
        """The chunks that snapshots reach; a few others may seem to be among them."""
        self.events(Started(operation="mark", total_files=len(live)))
        chunks = sum(len(info.table.kinds) for _, info in self.repository.index.packs())
        found = ChunkFilter(max(chunks, 1) + sum(snapshot.stats.files for snapshot in live[-1:]))
        for count, snapshot in enumerate(live, 1):
            mark([snapshot], self.repository.reader, found)
            self.events(Progress(files=count, bytes=0, current=snapshot.id))
        return found

    def classify(self, plan: CollectionPlan, stored: dict[bytes, tuple[RecordKind, int]]) -> None:
        """Put into a plan which of the stored packs are dead and which sparse."""
        assert plan.live is not None
        small: dict[RecordKind, list[tuple[bytes, int, int]]] = {}
        compromised = {epoch.number for epoch in self.repository.keyring.epochs if epoch.compromised}
        unindexed = dict(stored)
        excluded = self.repository.collections.deleted() | self.repository.collections.condemned()
        cold = self._cold_packs()
        held = self._held_packs()
        for pack in indexed_packs(self.repository):
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
        held = self.repository.snapshots.holds.held()
        return (
            {pack for snapshot in self.repository.snapshots.live() if snapshot.id in held for pack in snapshot.packs}
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
            header = self.repository.backend.retrieve(name, start=0, length=HEADER_BYTES)
            trailer = self.repository.backend.retrieve(name, start=size - TRAILER_BYTES, length=TRAILER_BYTES)
            length = read_footer_length(trailer, size)
            footer = self.repository.backend.retrieve(name, start=size - TRAILER_BYTES - length, length=length)
            key = self.repository.keyring.key(header_epoch(header, kind, self.repository.keyring.repository))
            table = open_table(header, footer, size, key)
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return True
        index = self.repository.index
        return any(
            chunk in live and not any(index.pack(place.pack).digest in stays for place in index.find_all(chunk))
            for chunk, *_ in table.chunks()
        )


def live_bytes(table: PackTable, live: ChunkFilter) -> tuple[int, int]:
    """(raw bytes of live chunks, raw bytes of all chunks) of a pack."""
    used = total = 0
    for chunk, _, _, length in table.chunks():
        total += length + 1  # an empty chunk counts too
        if chunk in live:
            used += length + 1
    return used, total
