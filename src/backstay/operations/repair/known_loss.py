"""What a repository must have by the word of its own records, and what no store has.

Names come from those who refer to an object: manifests name their predecessor, their packs and the key slots of their
time; collections name the snapshots that they found; segments name packs; sealed objects name their epoch; and some
records are numbered without gaps.

Nothing can be known of what nobody refers to: the newest snapshots since the last collection, a drop record whose
snapshot no later one names, key slots added after the last snapshot and what says that they were removed, the newest
epoch before it is used, a mark that an epoch is compromised, fences, the newest collection when all its records are
gone, older rules of the cold tier than the one that counts, WAL (`pg windows` shows where it is missing). The names
of lost index segments are never known, but that they are lost is, because packs that snapshots need are left over. A
pack that no segment names is known by its digest if a snapshot names it, and else, when the index is repaired, by the
files that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from backstay.core.ids import is_digest
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, ObjectNotFound
from backstay.repository.blobs.contents import all_chunk_ids
from backstay.repository.format import (
    RecordKind,
    collection_name,
    drop_name,
    epoch_name,
    pack_name,
    slot_name,
    slot_removal_name,
    snapshot_name,
    verdict_name,
    waiting_name,
)
from backstay.repository.logs.collections import CollectionRecord
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import read_listing

OTHER_COPY: Final = "put it back from another copy, if there is one"
INDEX_HINT: Final = "run `backstay repair index`: the packs themselves say what it said; then repeat this command"
SNAPSHOT_HINT: Final = f"{OTHER_COPY}; else accept the loss with `backstay repair snapshots`"
SLOT_HINT: Final = "whoever used it needs a new one: `backstay key`"
PACK_HINT: Final = "see which files need it: `lost`"
INDEX: Final = "index"  # the subject when segments are gone whose names nobody knows
PACKS: Final = "packs"  # the same with packs


@dataclass(frozen=True, slots=True)
class Loss:
    """One object that must have existed, and that no store has."""

    name: str
    message: str
    hint: str = OTHER_COPY


@dataclass(slots=True)
class KnownLoss:
    """One look at a repository whose index was loaded.

    `is_there` tells whether some store has an object. `damaged` are those that all have damaged, which are told
    already and whose consequences are not. `epochs` are those that whole objects say they were sealed in.
    """

    repository: Repository
    is_there: Callable[[str], bool]
    damaged: AbstractSet[str]
    epochs: Iterable[int] = ()
    losses: list[Loss] = field(default_factory=list)
    lost_epochs: set[int] = field(default_factory=set)
    has_unindexed: bool = False  # whether packs are lost of which no segment tells what was in them
    _deleted: set[bytes] = field(default_factory=set)
    _knows_deleted: bool = True  # whether these are all that collections deleted
    _is_complete: bool | None = None  # whether every chunk of every snapshot has a place
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    def find(self) -> list[Loss]:
        """All of it, in the order in which objects are written.

        Others may write and collect meanwhile: segments are read after snapshots, because they are stored before.
        """
        self._manifests = {manifest.id: manifest for manifest in self.repository.snapshots.live(on_damage=_told)}
        self.repository.reload_index()
        collections = self.repository.collections.announced(_told)
        self._find_epochs()
        self._find_slots()
        self._find_records(collections)
        self._find_packs()
        self._find_segments()
        self._find_snapshots(collections)
        return self.losses

    def _lose(self, name: str, message: str = "no copy has this object", hint: str = OTHER_COPY) -> None:
        if name not in self.damaged:
            self.losses.append(Loss(name, message, hint))

    def _miss(self, name: str, message: str) -> None:
        """The same for what may be there, and not readable, which is told."""
        if not self.is_there(name):
            self._lose(name, message)

    # -- keys

    def _find_epochs(self) -> None:
        """Numbers have no gaps, and whatever is sealed says by which."""
        keyring = self.repository.keyring
        last = max([*keyring.damaged, *(epoch.number for epoch in keyring.epochs)])
        used = {*range(1, last + 1), *self.epochs, *(info.epoch for _, info in self.repository.index.packs())}
        self.lost_epochs = {number for number in used if not self.is_there(epoch_name(number))}
        for number in sorted(self.lost_epochs):
            message = "no copy has this key: nothing that was sealed with it can be read"
            self._lose(epoch_name(number), message)

    def _find_slots(self) -> None:
        """Every slot that a snapshot saw is there or was removed. One that a later snapshot did not see was removed."""
        slots, seen = self.repository.slots, set[bytes]()
        for manifest in reversed(self._manifests.values()):
            for digest in set(manifest.slots) - seen:
                seen.add(digest)
                if self.is_there(slot_name(digest)) or slots.was_removed(digest):
                    continue
                if any(digest not in later.slots for later in self._followers(manifest)):
                    self._miss(slot_removal_name(digest), "no copy has this record of a key slot that was removed")
                elif not self.is_there(slot_removal_name(digest)):  # else that is damaged, and told
                    self._lose(slot_name(digest), "no copy has this key slot, nor a record of its removal", SLOT_HINT)

    def _followers(self, manifest: Manifest) -> Iterator[Manifest]:
        """The snapshots that were made when this one existed, as far as chains tell."""
        known = {manifest.id}
        for other in self._manifests.values():
            if other.previous in known:
                known.add(other.id)
                yield other

    # -- collections

    def _find_records(self, collections: list[CollectionRecord]) -> None:
        """Each has a number, and its three records follow each other."""
        log = self.repository.collections
        for number in range(1, log.last + 1):
            is_decided = self.is_there(verdict_name(number))
            if not self.is_there(collection_name(number)):
                self._lose(collection_name(number))
            if is_decided and not self.is_there(waiting_name(number)):
                self._lose(waiting_name(number))
        unreadable: set[str] = set()
        self._deleted = log.deleted(lambda name, error: unreadable.add(name))  # noqa: ARG005 - told already
        for record in collections:
            name = verdict_name(record.number)
            if name in unreadable or not self.is_there(name):
                self._find_verdict(record, name)
        unknown = set(range(1, log.last + 1)) - {record.number for record in collections}
        self._knows_deleted = not any(
            verdict_name(number) in unreadable or not self.is_there(verdict_name(number)) for number in unknown
        )

    def _find_verdict(self, record: CollectionRecord, name: str) -> None:
        """Packs that were condemned and have left index and store were deleted: that takes a verdict."""
        named = {info.digest for _, info in self.repository.index.packs()}
        gone = {digest for digest in record.condemned if digest not in named and not self._has_pack(digest)}
        if gone - self._deleted:
            self._miss(name, "no copy has this verdict of a collection, although packs were deleted by it")
        self._deleted |= gone

    # -- packs and index

    def _find_packs(self) -> None:
        """Those that segments name; and those that only snapshots name, when these lack something."""
        index = self.repository.index
        packs = {info.digest: pack_name(info.kind, info.digest) for _, info in index.packs()}
        missing = [digest for digest, name in packs.items() if not self.is_there(name)]
        if missing:
            self.repository.reload_index()  # a collector may have deleted them since
        for digest in missing:
            if index.number(digest) is not None:
                self._lose(packs[digest], hint=PACK_HINT)
        if not self._knows_deleted or self._finds_everything():
            return
        for digest in sorted({digest for manifest in self._manifests.values() for digest in manifest.packs}):
            if digest in packs or digest in self._deleted or self._has_pack(digest):
                continue
            message = "no copy has this pack, which snapshots need, and no segment of the index tells what was in it"
            self._lose(digest.hex(), message)
            self.has_unindexed = True

    def _has_pack(self, digest: bytes) -> bool:
        names = [pack_name(kind, digest) for kind in (RecordKind.DATA_PACK, RecordKind.META_PACK)]
        return any(map(self.is_there, names))

    def _find_segments(self) -> None:
        """Interrupted writers leave packs that no segment names too: it counts whether snapshots find everything."""
        index = self.repository.index
        if index.damaged or any(name.startswith("index/") for name in self.damaged):
            return  # which explains them, and is told
        if self._finds_everything():
            return
        left = set(self._stored()) - {info.digest for _, info in index.packs()} - self._deleted
        if left:
            message = f"no copy has the segments that name {plural(len(left), 'pack')}"
            self._lose(INDEX, message, INDEX_HINT)
        elif not self.lost_epochs and not self.has_unindexed:
            self._lose(PACKS, "no copy has packs that snapshots need, nor the segments that named them", PACK_HINT)
            self.has_unindexed = True

    def _stored(self) -> Iterator[bytes]:
        for prefix in ("packs/", "meta/"):
            for info in self.repository.backend.list(prefix):
                leaf = info.name.rpartition("/")[2]
                if is_digest(leaf) and info.name not in self.damaged:
                    yield bytes.fromhex(leaf)

    def _finds_everything(self) -> bool:
        """Whether every chunk of every snapshot has a place, as far as listings can be read."""
        if self._is_complete is None:
            streams = (manifest.stat_stream for manifest in self._manifests.values())
            self._is_complete = all(map(self._has_places, streams)) and all(map(self._has_places, self._contents()))
        return self._is_complete

    def _contents(self) -> Iterator[Content]:
        """Every listing, and every file in it."""
        seen: set[bytes] = set()
        waiting = [manifest.root for manifest in self._manifests.values()]
        while waiting:
            listing = waiting.pop()
            key = blake2b(listing.ids, digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            yield listing
            with suppress(CorruptedBackup, ObjectNotFound):  # then a pack is lost, and told
                for node in read_listing(listing, self.repository.reader):
                    if node.content is not None and node.is_dir:
                        waiting.append(node.content)
                    elif node.content is not None:
                        yield node.content

    def _has_places(self, content: Content) -> bool:
        try:
            return all(
                self.repository.index.search(chunk) is not None
                for chunk in all_chunk_ids(content, self.repository.reader)
            )
        except (CorruptedBackup, ObjectNotFound):  # as far as it can be read
            return True

    # -- snapshots

    def _find_snapshots(self, collections: list[CollectionRecord]) -> None:
        """A snapshot that was there, and is not, was dropped; and a record says so."""
        named = {ulid for record in collections for ulid in record.marked}
        named |= {manifest.previous for manifest in self._manifests.values() if manifest.previous is not None}
        dropped = self.repository.snapshots.dropped(named, _told)
        for ulid in sorted(named - dropped):
            if self.is_there(drop_name(ulid)):
                continue  # it cannot be read, which is told
            if self._was_dropped(ulid, collections):
                self._lose(drop_name(ulid), "no copy has this record of a snapshot that was deleted")
            elif not self.is_there(snapshot_name(ulid)):
                message = "no copy has this snapshot, nor a record that it was deleted"
                self._lose(snapshot_name(ulid), message, SNAPSHOT_HINT)

    def _was_dropped(self, ulid: str, collections: list[CollectionRecord]) -> bool:
        """Whether a collection did not see a snapshot any more that was there before: it sees all there are."""
        later = {manifest.id for manifest in self._manifests.values() if manifest.previous == ulid}
        was_there = False
        for record in collections:
            if ulid in record.marked:
                was_there = True
            elif was_there or later.intersection(record.marked):
                return True
        return False


def _told(name: str, error: BackstayError) -> None:
    """Whoever looked at every object has told of this one."""
