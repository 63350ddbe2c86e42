"""A store without any room left: dropping and collecting still work, in the room of the reserve."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from backstay.codec.digest import sha256
from backstay.core.events import Event, Warned
from backstay.core.quantities import format_size
from backstay.errors import CollectionBusy, CorruptedBackup, InsufficientSpace, StorageUnavailable
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection import reserve
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionResult
from backstay.repository.format import RESERVE
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from tests.crash.small_world import PACK_TARGET, SECRET, MemorySource, Tree, content


class SmallStorage(MemoryStorage):
    """A store that is full at some size."""

    capacity: int | None = None

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if self.capacity is not None and self.used() + len(data) > self.capacity:
            raise InsufficientSpace("the store is full")
        super().store(name, data, overwrite=overwrite)

    def used(self) -> int:
        return sum(info.size for info in self.list())

    def fill(self) -> None:
        self.capacity = self.used()


class Small:
    """A repository in such a store, with some snapshots."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.storage = SmallStorage(clock=self.clock)
        environment = Environment(clock=self.clock, threads=1, pack_target=PACK_TARGET)
        self.repository = Repository.create(self.storage, SECRET, environment=environment)
        self.events: list[Event] = []

    def back_up(self, tree: Tree) -> str:
        self.clock.advance(3600)
        made = run_backup(self.repository, MemorySource(tree), BackupOptions(host="host"))
        assert made.snapshot is not None
        return made.snapshot

    def collect(self) -> CollectionResult:
        collector = Collector(self.repository, lease=timedelta(0), events=self.events.append)
        return collector.execute(collector.plan())

    def assert_good(self) -> None:
        self.storage.capacity = None
        assert run_verify(self.repository, options=VerifyOptions(read_data=1.0)).ok


def files(seed: int, count: int = 12) -> Tree:
    """Files of which two fill a pack."""
    return {b"/%03d" % at: content(100 * seed + at, 50_000) for at in range(count)}


@pytest.fixture
def small() -> Small:
    made = Small()
    made.back_up(files(1))
    made.back_up(files(2))
    return made


def prune(small: Small) -> None:
    plan = plan_prune(small.repository, RetentionRules(keep_last=1), now=small.clock.now(), zone=UTC)
    assert execute_prune(small.repository, plan).dropped


def test_a_full_store_is_pruned_and_collected(small: Small) -> None:
    assert reserve.set_aside(small.repository)
    small.storage.fill()
    prune(small)
    assert small.collect().freed_bytes > 500_000
    small.assert_good()


def test_without_a_reserve_there_is_no_room(small: Small) -> None:
    small.storage.fill()
    with pytest.raises(InsufficientSpace):
        prune(small)
    small.storage.capacity = None
    prune(small)
    small.storage.fill()
    with pytest.raises(InsufficientSpace):
        small.collect()
    small.assert_good()


def test_a_collection_sets_the_reserve_aside_again(small: Small) -> None:
    reserve.set_aside(small.repository)
    prune(small)
    small.storage.fill()
    small.collect()
    assert small.storage.stat(RESERVE).size == reserve.SIZE
    assert reserve.release(small.repository)
    assert not reserve.release(small.repository)
    small.storage.fill()
    assert not reserve.set_aside(small.repository)
    small.storage.capacity = None
    assert not small.collect().deleted_packs  # which has nothing to free, and leaves the reserve to its caller
    assert not small.storage.exists(RESERVE)


def test_no_room_for_copies_frees_what_is_dead_all_the_same(small: Small) -> None:
    small.back_up({name: data for name, data in files(2).items() if int(name[1:]) % 2})  # half of each pack
    prune(small)
    reserve.set_aside(small.repository)
    small.storage.capacity = small.storage.used() + 150_000
    plan = Collector(small.repository).plan()
    assert plan.sparse
    assert plan.dead
    assert small.collect().freed_bytes > 500_000
    [warned] = [event for event in small.events if isinstance(event, Warned)]
    assert f"make {format_size(plan.rewritten_bytes)} of room" in warned.message
    small.collect()
    assert not Collector(small.repository).plan().sparse
    small.assert_good()


def test_a_collection_that_comes_too_late_sets_the_reserve_aside_again(small: Small) -> None:
    reserve.set_aside(small.repository)
    prune(small)
    collector = Collector(small.repository)
    plan = collector.plan()
    small.clock.advance(1)
    small.collect()
    small.clock.advance(1)
    with pytest.raises(CollectionBusy):
        collector.execute(plan)
    reserve.check(small.storage)
    small.assert_good()


def test_a_collection_that_fails_sets_the_reserve_aside_again(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise StorageUnavailable("the line is cut")

    reserve.set_aside(small.repository)
    prune(small)
    monkeypatch.setattr(Collector, "sweep", fail)
    with pytest.raises(StorageUnavailable):
        small.collect()
    reserve.check(small.storage)


def test_a_record_that_was_stored_when_the_disk_was_told_to_be_full_is_done(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its directory cannot be made durable."""
    store, told = small.storage.store, False

    def stored(name: str, data: Buffer, *, overwrite: bool = False) -> None:
        nonlocal told
        store(name, data, overwrite=overwrite)
        if name.startswith("drops/") and not told:
            told = True
            raise InsufficientSpace("the store is full")

    reserve.set_aside(small.repository)
    monkeypatch.setattr(small.storage, "store", stored)
    prune(small)
    assert told
    assert len(small.repository.snapshots.live()) == 1


def test_a_step_that_needs_the_reserve_and_fails_sets_it_aside_again(small: Small) -> None:
    def fail() -> None:
        raise InsufficientSpace("the store is full")

    assert reserve.set_aside(small.repository)
    with pytest.raises(InsufficientSpace):
        reserve.with_reserve(small.repository, fail)
    reserve.check(small.storage)


def test_copies_alone_that_have_no_room_are_an_error(small: Small) -> None:
    small.back_up({name: data for name, data in files(2).items() if int(name[1:]) % 2})
    prune(small)
    reserve.set_aside(small.repository)
    collector = Collector(small.repository)
    plan = collector.plan()
    plan.dead = {}
    small.storage.fill()
    with pytest.raises(InsufficientSpace) as caught:
        collector.execute(plan)
    assert f"make {format_size(plan.rewritten_bytes)} of room" in caught.value.hint
    assert small.storage.exists(RESERVE)
    small.assert_good()


def test_packs_go_before_their_segments_are_replaced_when_there_is_no_room(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune(small)
    compact = Collector.compact
    packs = [len(list(small.storage.list("packs/")))]

    def compact_in_little_room(collector: Collector, doomed: set[bytes]) -> None:
        packs.append(len(list(small.storage.list("packs/"))))
        if packs[-1] == packs[0]:
            raise InsufficientSpace("the store is full")
        compact(collector, doomed)

    monkeypatch.setattr(Collector, "compact", compact_in_little_room)
    assert small.collect().freed_bytes > 500_000
    assert packs[0] == packs[1] > packs[2]
    small.assert_good()


@pytest.mark.parametrize("at", [None, 0, 40, reserve.SIZE - 1], ids=["cut", "digest", "body", "end"])
def test_a_reserve_that_was_changed_is_told_and_set_aside_anew(small: Small, at: int | None) -> None:
    assert reserve.set_aside(small.repository)
    reserve.check(small.storage)
    data = bytearray(small.storage.retrieve(RESERVE))
    if at is None:
        del data[-1:]
    else:
        data[at] ^= 1
    small.storage.store(RESERVE, bytes(data), overwrite=True)
    with pytest.raises(CorruptedBackup, match="was changed"):
        reserve.check(small.storage)
    assert reserve.set_aside(small.repository)
    reserve.check(small.storage)


def test_a_reserve_of_another_size_is_none_though_its_bytes_fit_together(small: Small) -> None:
    small.storage.store(RESERVE, sha256(b"") + b"", overwrite=True)
    with pytest.raises(CorruptedBackup, match="was changed"):
        reserve.check(small.storage)
