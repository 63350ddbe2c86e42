"""What a collection takes for garbage, and where it takes nothing because it cannot know."""

from __future__ import annotations

import pytest

from backstay.codec.compression import Compressor
from backstay.codec.digest import sha256
from backstay.core.events import Event, Warned, ignore
from backstay.errors import CorruptedBackup, HoldViolation, ObjectExists
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.garbage import MANY_SMALL, Garbage
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.collection.rewriting import rewrite
from backstay.repository.format import (
    BlobKind,
    RecordKind,
    collection_name,
    index_name,
    pack_name,
    snapshot_name,
    verdict_name,
)
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.logs.collections import VerdictRecord
from backstay.repository.packs.pack import PackBuilder
from backstay.repository.packs.stored import stored_packs
from backstay.repository.repository import Environment, Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from tests.crash.small_world import PACK_TARGET, SECRET, MemorySource, Tree, content


class Heap:
    """A repository of small packs; `open` is another program, which has seen nothing yet."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage(clock=self.clock)
        self.environment = Environment(clock=self.clock, threads=1, pack_target=PACK_TARGET)
        self.repository = Repository.create(self.storage, SECRET, environment=self.environment)

    def open(self) -> Repository:
        return Repository.open(self.storage, SECRET, environment=self.environment)

    def back_up(self, tree: Tree) -> Manifest:
        self.clock.advance(3600)
        made = run_backup(self.repository, MemorySource(tree), BackupOptions(host="host"))
        assert made.snapshot is not None
        return self.repository.snapshots.get(made.snapshot)

    def packs(self, kind: RecordKind = RecordKind.DATA_PACK) -> set[bytes]:
        return {digest for digest, (found, _) in stored_packs(self.storage) if found is kind}

    def garbage(self, repository: Repository) -> tuple[set[bytes], set[bytes]]:
        """(dead, sparse) packs of data, as a collection would find them now."""
        plan = Collector(repository).plan()
        kinds = dict(stored_packs(self.storage))
        data = {digest for digest, (kind, _) in kinds.items() if kind is RecordKind.DATA_PACK}
        return plan.dead.keys() & data, plan.sparse.keys() & data

    def forget_index(self) -> None:
        """No segment names any pack, as after writers that died."""
        for info in list(self.storage.list("index/")):
            self.storage.delete(info.name)


def files(seed: int) -> Tree:
    """Files of which two fill a pack."""
    return {b"/%03d" % at: content(100 * seed + at, 50_000) for at in range(8)}


@pytest.fixture
def heap() -> Heap:
    return Heap()


def test_nothing_is_garbage_while_all_is_needed(heap: Heap) -> None:
    heap.back_up(files(1))
    assert heap.garbage(heap.open()) == (set(), set())


def test_packs_of_a_deleted_snapshot_are_dead_and_no_others(heap: Heap) -> None:
    first = heap.back_up(files(1))
    old = heap.packs()
    heap.back_up(files(2))
    heap.repository.snapshots.drop(first.id, "test", heap.clock)
    assert heap.garbage(heap.open()) == (old, set())


def test_a_pack_of_which_little_is_needed_is_sparse(heap: Heap) -> None:
    first = heap.back_up(files(1))
    old = heap.packs()
    heap.back_up({name: data for name, data in files(1).items() if int(name[1:]) % 2})
    heap.repository.snapshots.drop(first.id, "test", heap.clock)
    dead, sparse = heap.garbage(heap.open())
    assert sparse
    assert sparse | dead <= old


def test_packs_in_no_segment_are_dead_unless_they_alone_hold_what_is_needed(heap: Heap) -> None:
    kept = heap.back_up(files(1))
    needed = heap.packs()
    gone = heap.back_up(files(2))
    useless = heap.packs() - needed
    heap.repository.snapshots.drop(gone.id, "test", heap.clock)
    repository = heap.open()
    garbage = Garbage(repository, ignore)
    plan = Collector(repository).plan()
    plan.dead.clear()
    plan.sparse.clear()
    stored = dict(stored_packs(heap.storage))
    heap.forget_index()
    repository.reload_index()
    garbage.classify(plan, stored)
    assert plan.dead.keys() & (needed | useless) == useless
    assert kept.id in plan.marked


@pytest.mark.parametrize(("cut", "is_dead"), [(10, True), (None, False), (-1, False)], ids=["no pack", "gone", "cut"])
def test_a_pack_in_no_segment_that_cannot_be_read_stays_if_it_may_be_one(
    heap: Heap, cut: int | None, is_dead: bool
) -> None:
    heap.back_up(files(1))
    repository = heap.open()
    plan = Collector(repository).plan()
    stored = dict(stored_packs(heap.storage))
    heap.forget_index()
    repository.reload_index()
    digest = min(heap.packs())
    name = pack_name(RecordKind.DATA_PACK, digest)
    data = heap.storage.retrieve(name)
    heap.storage.delete(name)
    if cut is not None:
        heap.storage.store(name, data[:cut])
    stored[digest] = (RecordKind.DATA_PACK, len(data) if cut is None else len(data[:cut]))
    Garbage(repository, ignore).classify(plan, stored)
    assert (digest in plan.dead) == is_dead


def test_a_pack_in_no_segment_is_dead_when_others_hold_its_chunks(heap: Heap) -> None:
    heap.back_up(files(1))
    before = heap.packs()
    segments = {info.name: heap.storage.retrieve(info.name) for info in heap.storage.list("index/")}
    heap.forget_index()  # so that the same files are stored once more
    heap.repository.reload_index()
    heap.back_up(files(1))
    twice = heap.packs() - before
    assert twice
    heap.forget_index()
    for name, data in segments.items():
        heap.storage.store(name, data)
    dead, _ = heap.garbage(heap.open())
    assert dead == twice


def test_packs_sealed_with_a_compromised_key_are_written_anew_though_all_is_needed(heap: Heap) -> None:
    heap.back_up(files(1))
    old = heap.packs()
    heap.repository.keyring.mark_compromised(1, heap.clock)
    heap.repository.keyring.begin_epoch(heap.clock)
    assert heap.garbage(heap.open()) == (set(), old)


def test_what_is_not_named_like_a_pack_is_nobodys_garbage(heap: Heap) -> None:
    heap.back_up(files(1))
    heap.storage.store("packs/zz/notes.txt", b"mine")
    assert heap.garbage(heap.open()) == (set(), set())
    heap.back_up({})
    collector = Collector(heap.open())
    collector.execute(collector.plan())
    assert heap.storage.retrieve("packs/zz/notes.txt") == b"mine"


def test_many_small_packs_are_joined(heap: Heap) -> None:
    for seed in range(MANY_SMALL):
        heap.back_up({b"/file": content(seed, 50_000)})
    assert heap.garbage(heap.open()) == (set(), set())
    heap.back_up({b"/file": content(MANY_SMALL, 50_000)})
    assert heap.garbage(heap.open()) == (set(), heap.packs())


def test_a_repository_without_any_snapshot_gives_nothing_up_unless_that_is_meant(heap: Heap) -> None:
    made = heap.back_up(files(1))
    heap.storage.delete(snapshot_name(made.id))  # by somebody who hides it, say
    with pytest.raises(HoldViolation, match="no snapshot, so nothing is collected"):
        Collector(heap.open()).plan()
    assert Collector(heap.open()).plan(allow_empty=True).dead.keys() >= heap.packs()


def test_a_snapshot_that_is_missing_without_a_record_stops_the_collection(heap: Heap) -> None:
    first = heap.back_up(files(1))
    heap.back_up(files(2))
    heap.storage.delete(snapshot_name(first.id))
    with pytest.raises(CorruptedBackup, match="while a snapshot is missing") as refused:
        Collector(heap.open()).plan()
    assert first.id in str(refused.value.cause)


def test_a_damaged_segment_stops_the_collection(heap: Heap) -> None:
    heap.back_up(files(1))
    data = b"no segment"
    heap.storage.store(index_name(sha256(data)), data)
    with pytest.raises(CorruptedBackup, match="while the index is damaged"):
        Collector(heap.open()).plan()


def test_something_foreign_among_the_records_of_collections_stops_the_collection(heap: Heap) -> None:
    heap.back_up(files(1))
    heap.storage.store(f"{collection_name(1)}.notes", b"mine")
    with pytest.raises(CorruptedBackup, match="something foreign"):
        Collector(heap.open()).plan()


class _Unmoved(MemoryStorage):
    """Says that it has deleted a pack, as a proxy does in its place, while `deaf`."""

    deaf = False

    def delete(self, name: str) -> None:
        if not (self.deaf and name.startswith(("packs/", "meta/"))):
            super().delete(name)


def test_what_is_still_there_was_not_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap()
    first = heap.back_up(files(1))
    heap.back_up(files(2))
    heap.repository.snapshots.drop(first.id, "for a test", heap.clock)
    told: list[Event] = []
    monkeypatch.setattr(heap.storage, "__class__", _Unmoved)
    heap.storage.deaf = True  # type: ignore[attr-defined]
    collector = Collector(heap.open(), events=told.append)
    plan = collector.plan()
    assert plan.dead
    assert collector.execute(plan).freed_bytes == 0
    assert any("still there although" in event.message for event in told if isinstance(event, Warned))
    heap.storage.deaf = False  # type: ignore[attr-defined]
    again = Collector(heap.open())
    assert again.execute(again.plan()).freed_bytes >= plan.dead_bytes


def rewriting(repository: Repository, pack: bytes, chunk: bytes) -> CollectionPlan:
    """A plan that copies one chunk of one pack."""
    plan = CollectionPlan(number=1, live=ChunkFilter(1))
    assert plan.live is not None
    plan.live.add(chunk)
    plan.sparse[pack] = (RecordKind.DATA_PACK, 1, 1)
    return plan


def forged_pack(heap: Heap, chunk: bytes, data: bytes) -> bytes:
    """An indexed pack whose one chunk has this id, whatever its bytes are; its digest."""
    epoch, repository = heap.repository.keyring.current, heap.repository
    builder = PackBuilder(
        RecordKind.DATA_PACK, repository=repository.keyring.repository, epoch=epoch.number, key=epoch.key
    )
    builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, chunk, data, (), Compressor()))
    pack = builder.finish()
    with builder.data as stored:
        heap.storage.store(pack_name(pack.kind, pack.digest), bytes(stored))
    repository.index.write([pack])
    return pack.digest


@pytest.mark.parametrize("named", [b"right", b"wrong"])
def test_a_chunk_of_other_bytes_than_its_id_says_is_not_copied_into_a_new_pack(heap: Heap, named: bytes) -> None:
    chunk = heap.repository.keyring.chunk_ids.of(named)
    digest = forged_pack(heap, chunk, b"right")
    repository, before = heap.open(), heap.packs()
    plan = rewriting(repository, digest, chunk)
    if named == b"right":
        rewrite(repository, plan, ignore)
        assert len(heap.packs() - before) == 1
        return
    with pytest.raises(CorruptedBackup, match="other bytes than its id"):
        rewrite(repository, plan, ignore)
    assert heap.packs() == before


def test_a_pack_that_was_deleted_meanwhile_is_not_rewritten(heap: Heap) -> None:
    chunk = heap.repository.keyring.chunk_ids.of(b"data")
    digest = forged_pack(heap, chunk, b"data")
    repository, keyring = heap.open(), heap.repository.keyring
    verdict = VerdictRecord(7, 0, (digest,), ())
    heap.storage.store(verdict_name(7), keyring.seal(RecordKind.VERDICT, verdict))
    repository.reload_index()
    with pytest.raises(CorruptedBackup, match="not usable any more"):
        rewrite(repository, rewriting(repository, digest, chunk), ignore)


def test_a_record_that_can_neither_be_stored_nor_read_is_told(heap: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a directory lies under its name."""
    repository = heap.open()

    def taken(name: str, data: bytes, *, overwrite: bool = False) -> None:
        raise ObjectExists(name)

    monkeypatch.setattr(heap.storage, "store", taken)
    with pytest.raises(CorruptedBackup, match="can neither be stored nor read"):
        repository.collections.decide(VerdictRecord(1, 0, (), ()))
