"""What a collection takes for garbage, and where it takes nothing because it cannot know."""

from __future__ import annotations

import pytest

from backstay.codec.digest import sha256
from backstay.core.events import Event, Warned, ignore
from backstay.errors import CorruptedBackup, HoldViolation
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.garbage import MANY_SMALL, Garbage
from backstay.repository.format import RecordKind, collection_name, index_name, pack_name, snapshot_name
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
