"""Orders of events that once lost data, or could: each written out, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from unittest.mock import patch

import pytest

from backstay.errors import BackstayError, CollectionBusy, ObjectExists, StorageUnavailable
from backstay.repository.blobs import writer as blob_writer
from backstay.repository.collection import compaction as compaction_module
from backstay.repository.collection.collector import Collector
from backstay.repository.format import RecordKind, index_name
from backstay.repository.index.index import Index, MemoryPlaceMap
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import LEASE
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.testing import CrashPoint, Fault, FaultyBackend
from tests.protocol.scheduling import SECRET
from tests.protocol.variants import ANY_BASE
from tests.protocol.world import CONTENTS, Tree, World, patched

SMALL, BIG, OTHER = (sorted(CONTENTS, key=len)[at] for at in (0, -1, -3))
KEPT: Tree = {b"a": {b"x": SMALL}}


class Once:
    """Calls something, the first time only."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action: Callable[[], object] | None = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Before(StorageBackend):
    """Lets others act right before the first call of an operation whose name begins so."""

    def __init__(self, inner: StorageBackend, operation: str, prefix: str, action: Callable[[], object]) -> None:
        self._inner = inner
        self.expect(operation, prefix, action)

    def expect(self, operation: str, prefix: str, action: Callable[[], object]) -> None:
        self._operation, self._prefix, self._action = operation, prefix, Once(action)

    @property
    def url(self) -> str:
        return self._inner.url

    def _call(self, operation: str, name: str) -> None:
        if operation == self._operation and name.startswith(self._prefix):
            self._action()

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._call("store", name)
        self._inner.store(name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._call("retrieve", name)
        return self._inner.retrieve(name, start=start, length=length)

    def delete(self, name: str) -> None:
        self._call("delete", name)
        self._inner.delete(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._call("list", prefix)
        return self._inner.list(prefix)

    def stat(self, name: str) -> ObjectInfo:
        self._call("stat", name)
        return self._inner.stat(name)


class After(Before):
    """The same, right after a listing."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = [*self._inner.list(prefix)]
        self._call("list", prefix)
        return iter(found)


@pytest.fixture
def world() -> Iterator[World]:
    """A new repository; one open pack per kind, so that a test knows what lies together."""
    made = World(1)
    with patched(lambda: made), patch.object(blob_writer, "OPEN_PACKS", 1):
        Repository.create(made.store, SECRET, environment=made.environment()).close()
        yield made


def drop(world: World, snapshot: str | None) -> None:
    assert snapshot is not None
    world.seen.dropping.add(snapshot)
    world.open(world.store).snapshots.drop(snapshot, "test", world.clock)


def collect(world: World) -> None:
    world.collect(world.open(world.store))


def back_up(world: World, tree: Tree, **more: object) -> str | None:
    return world.back_up(world.open(world.store), tree, **more)  # type: ignore[arg-type]


def test_base_whose_packs_were_rewritten(world: World) -> None:
    """A snapshot names the packs of its base, but the base's chunks lie in others since a collection copied them."""
    first = back_up(world, {b"a": {b"x": SMALL}, b"b": {b"x": BIG}})
    base = back_up(world, KEPT)
    drop(world, first)
    collect(world)  # copies the small chunk to a new pack

    def meanwhile() -> None:
        drop(world, base)
        collect(world)  # condemns the new pack, waits for the writer

    back_up(world, KEPT | {b"c": {b"x": OTHER}}, on_list=Once(meanwhile))
    collect(world)
    world.check()


def test_base_dropped_while_a_collection_is_open(world: World) -> None:
    """A collection keeps a late snapshot's packs only while that lives, and does not wait for who builds on it."""
    build_on_a_dropped_base(world)
    world.check()


def test_weakness_is_found(world: World) -> None:
    """The test of the test above: with any snapshot as base, data is lost."""
    with ExitStack() as stack:
        for replacement in ANY_BASE.applied():
            stack.enter_context(replacement)
        build_on_a_dropped_base(world)
        with pytest.raises(BackstayError, match=r"is missing|is gone|cannot be read"):
            world.check()


def build_on_a_dropped_base(world: World) -> None:
    drop(world, back_up(world, KEPT))
    wider = KEPT | {b"b": {b"x": BIG}}
    base = back_up(world, wider, on_list=Once(lambda: collect(world)))  # its packs are condemned while it is made

    def meanwhile() -> None:
        drop(world, base)
        collect(world)

    back_up(world, wider | {b"c": {b"x": OTHER}}, on_list=Once(meanwhile))


def test_base_chosen_before_collections_are_listed(world: World) -> None:
    """The same, but the collection is decided between the writer's look at snapshots and that at collections."""
    drop(world, back_up(world, KEPT))
    wider = KEPT | {b"b": {b"x": BIG}}
    base = back_up(world, wider, on_list=Once(lambda: collect(world)))

    def meanwhile() -> None:
        drop(world, base)
        collector = Collector(world.open(world.store))
        collector.log.refresh()
        collector.finish(1)
        collector.sweep()

    store = Before(world.store, "list", "gc/", meanwhile)
    world.back_up(world.open(store), wider | {b"c": {b"x": OTHER}})
    world.check()


def test_collector_looks_while_another_compacts(world: World) -> None:
    """A segment is superseded while a collector reads the index: its packs are not those of a dead writer."""
    store = Before(world.store, "", "", lambda: None)
    collecting = world.open(store)
    collecting.reload_index()
    back_up(world, {b"a": {b"%d" % number: content for number, content in enumerate(CONTENTS[:4])}})
    compacting = world.open(world.store)
    with patch.object(compaction_module, "SEGMENT_TARGET", 1), patch.object(compaction_module, "MANY_SEGMENTS", 0):
        Collector(compacting).compact(set())  # now each pack has a segment of its own
    segment = next(name for name in compacting.index.segments() if _has_only_data(compacting.index, name))

    def compact() -> None:
        other = Collector(compacting)
        with patch.object(compaction_module, "segments_to_replace", lambda *_: [segment]):
            other.compact(set())

    store.expect("retrieve", index_name(segment), compact)
    with suppress(BackstayError):
        world.collect(collecting)
    world.check()


def _has_only_data(index: Index, segment: bytes) -> bool:
    packs = {info.digest: info.kind for _, info in index.packs()}
    return all(packs[digest] is RecordKind.DATA_PACK for digest in index.packs_of(segment))


def test_segment_superseded_while_packs_are_rewritten(world: World) -> None:
    """What a collector condemns as rewritten was rewritten, also when the index changed since its plan."""
    first = back_up(world, {b"a": {b"x": SMALL}, b"b": {b"x": BIG}})
    back_up(world, KEPT)
    for number, content in enumerate(CONTENTS[:6]):
        back_up(world, {b"a": {b"%d" % number: content}}, host=f"h{number}")
    drop(world, first)
    collector = Collector(world.open(world.store))
    plan = collector.plan()
    assert plan.sparse
    other = Collector(world.open(world.store))
    other.compact(set())
    with suppress(BackstayError):
        collector.execute(plan)
    world.check()


def test_copy_is_indexed_between_plan_and_rewrite(world: World) -> None:
    """Two collectors copy the same chunks; one plans when the other's copy is stored, and copies when it is indexed."""
    first = back_up(world, {b"a": {b"x": SMALL}, b"b": {b"x": BIG}})
    back_up(world, KEPT)
    drop(world, first)
    plans = []

    def plan_too() -> None:
        collector = Collector(world.open(world.store))
        plans.append((collector, collector.plan()))

    def finish_other() -> None:
        collector, plan = plans[0]
        with suppress(BackstayError):
            collector.execute(plan)

    store = Before(world.store, "store", "index/", plan_too)  # its copies are stored, but not yet indexed
    repository = world.open(store)
    collector = Collector(repository)
    plan = collector.plan()
    assert plan.sparse
    collector._rewrite(plan)
    finish_other()
    with suppress(BackstayError):
        collector.condemn(plan)
    world.check()


def test_snapshot_made_during_a_collection_can_be_read_at_once(world: World) -> None:
    """Packs condemned before a writer used them stay readable, and later collections are not stopped by them."""
    drop(world, back_up(world, KEPT))

    def meanwhile() -> None:
        collect(world)

    back_up(world, KEPT, on_list=Once(meanwhile))
    world.check_snapshots()
    collect(world)
    world.check()


def test_two_processes_share_a_place_map(world: World) -> None:
    """A process that listed the index earlier makes no other one forget a newer segment, and lose its packs."""
    back_up(world, KEPT)
    shared = MemoryPlaceMap()
    with patch.object(Repository, "_place_map", lambda _: shared):
        collecting = world.open(world.store)
        collecting.reload_index()

    def newer() -> None:
        back_up(world, {b"b": {b"x": BIG}}, host="two")
        collecting.reload_index()  # now the shared map knows the newer segment

    listing = Index(After(world.store, "list", "index/", newer), collecting.keyring, shared)
    listing.load()
    collector = Collector(collecting)
    with patch.object(collecting, "reload_index", collecting.collections.refresh):  # it has just done so
        plan = collector.plan()
    with suppress(BackstayError):
        collector.execute(plan)
    world.check()


def test_traces_of_a_writer_that_died_after_its_commit(world: World) -> None:
    """Its snapshot stands; its session goes once the lease is over."""
    store = FaultyBackend(world.store)
    store.script(Fault(kind="crash_before", operation="delete", prefix="sessions/"))
    with pytest.raises(CrashPoint):
        world.back_up(world.open(store), KEPT)
    world.check()


class Delayed(Before):
    """A store in front of which a commit is held up: its sender is told of no answer, and it arrives later."""

    def __init__(self, inner: StorageBackend) -> None:
        super().__init__(inner, "", "", lambda: None)
        self.held: list[tuple[str, bytes]] = []

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith("snapshots/") and not self.held:
            self.held.append((name, bytes(data)))
            raise StorageUnavailable(f"no answer for {name}")
        super().store(name, data, overwrite=overwrite)

    def deliver(self) -> None:
        with suppress(ObjectExists):
            self._inner.store(*self.held[0])


@pytest.mark.parametrize("lease_is_over", [False, True])
def test_commit_that_arrives_after_its_writer_gave_up(world: World, lease_is_over: bool) -> None:
    """Its session outlives the writer: a collection waits for the commit, or makes it fail."""
    back_up(world, KEPT)
    store = Delayed(world.store)
    with pytest.raises(StorageUnavailable):
        world.back_up(world.open(store), {b"a": {b"y": BIG}}, host="two")
    if lease_is_over:
        world.clock.advance(2 * LEASE / timedelta(seconds=1))
    collect(world)
    store.deliver()
    assert len(world.open(world.store).snapshots.live()) == (1 if lease_is_over else 2)
    world.check_snapshots()
    collect(world)
    world.check()


def test_a_writer_that_was_fenced_leaves_nothing(world: World) -> None:
    def fence() -> None:
        world.clock.advance(2 * LEASE / timedelta(seconds=1))
        collect(world)

    back_up(world, KEPT)
    store = Before(world.store, "store", "snapshots/", fence)
    assert world.back_up(world.open(store), {b"a": {b"y": BIG}}, host="two") is None
    assert len(world.seen.fenced) == 1
    assert not list(world.store.list("sessions/"))
    world.check()


def test_index_segment_sent_again(world: World) -> None:
    """A layer that retries a store whose answer was lost meets its own object."""

    class Resending(Before):
        def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
            self._inner.store(name, data, overwrite=overwrite)
            if name.startswith(("index/", "packs/", "sessions/", "snapshots/", "drops/", "gc/")):
                self._inner.store(name, data, overwrite=overwrite)

    store = Resending(world.store, "", "", lambda: None)
    first = world.back_up(world.open(store), {b"a": {b"x": SMALL}, b"b": {b"x": BIG}})
    world.back_up(world.open(store), KEPT)
    drop(world, first)
    try:
        world.collect(world.open(store))
    except CollectionBusy:
        pytest.fail("a collector took its own record for that of another")
    world.check()
