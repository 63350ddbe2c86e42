"""The program ends at each write of a snapshot and of a collection: what is left is what the order promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backstay.errors import ValueBusy
from backstay.graph.metadata_graph import MetadataGraph
from backstay.storage.memory import MemoryStorage
from backstay.testing import CrashPoint, Fault, FaultyBackend
from backstay.testing.clock import FakeClock
from backstay.testing.faults import FaultKind, Operation
from tests.graph.stored import Stored

WAYS: tuple[tuple[FaultKind, Operation], ...] = (
    ("crash_before", "store"),
    ("crash_after", "store"),
    ("crash_before", "delete"),
    ("crash_after", "delete"),
)


class World:
    """Two snapshots of a graph with values a, b and b, c; the first is deleted, so that only a should go."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.shelf = MemoryStorage(clock=self.clock)
        self.stored = Stored(self.shelf, clock=self.clock)
        graph = self.stored.graph({"a": b"a", "b": b"b"})
        self.first = self.stored.manager(graph).create_snapshot().id
        self.clock.advance(1)
        self.graph = self.stored.graph({"b": b"b", "c": b"c"})
        self.second = self.stored.manager(self.graph).create_snapshot().id
        self.free = self.stored.values.store(b"in no graph")
        self.a, self.b, self.c = (self.stored.values.store(name) for name in (b"a", b"b", b"c"))
        self.clock.advance(1)
        self.faulty = FaultyBackend(self.shelf)
        self.stored.reopen(self.faulty)

    def go_on(self) -> None:
        """Another program, on a store that works."""
        self.stored.reopen(self.shelf)

    def there(self) -> set[str]:
        return set(self.stored.values.list())


def crashes(act: Callable[[World], object]) -> Iterator[World]:
    """A world after each crash that an action can meet, until it meets none."""
    for kind, operation in WAYS:
        for at in range(1, 100):
            world = World()
            world.faulty.script(Fault(kind=kind, operation=operation, at=at))
            try:
                act(world)
            except CrashPoint:
                world.go_on()
                yield world
            else:
                break


@pytest.mark.crash
def test_a_snapshot_is_there_as_a_whole_or_not_at_all_and_no_value_is_lost() -> None:
    def act(world: World) -> None:
        world.stored.manager(world.graph).create_snapshot("third")

    count = 0
    for world in crashes(act):
        count += 1
        manager = world.stored.manager(world.graph)
        told = manager.list_snapshots()
        assert [one.id for one in told][:2] == [world.first, world.second]
        assert len(told) in (2, 3)
        assert all(manager.restore_snapshot(one.id).ok for one in told)
        assert manager.create_snapshot("again").graph == world.graph
        assert manager.garbage_collect() == []
        assert world.there() == {world.a, world.b, world.c, world.free}
    assert count >= 12


def delete_and_collect(world: World) -> None:
    manager = world.stored.manager(world.graph)
    manager.delete_snapshot(world.first)
    manager.garbage_collect()


def expire(world: World) -> None:
    world.stored.manager(world.graph).garbage_collect(max_snapshots=1)


@pytest.mark.crash
@pytest.mark.parametrize("act", [delete_and_collect, expire])
def test_a_collection_that_was_cut_short_is_finished_by_the_next(act: Callable[[World], None]) -> None:
    count = 0
    for world in crashes(act):
        count += 1
        manager = world.stored.manager(world.graph)
        live = {told.id for told in manager.list_snapshots()}
        assert world.second in live
        assert {world.b, world.c, world.free} <= world.there()
        if world.first in live:
            assert manager.restore_snapshot(world.first).ok, "it is there, so it is whole"
        elif world.first in world.stored.repository.snapshots.dropped():
            assert world.a not in world.there(), "nobody knows any more what it named"
        act(world)
        assert world.there() == {world.b, world.c, world.free}
        assert {told.id for told in manager.list_snapshots()} == {world.second}
        assert list(world.shelf.list("graphs/")) == []
        assert manager.verify().ok
    assert count >= 8


def test_a_dead_writer_keeps_values_only_until_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.faulty.script(Fault(kind="crash_before", operation="store", prefix="snapshots/"))
    with pytest.raises(CrashPoint):
        world.stored.manager(world.graph).create_snapshot()
    world.go_on()
    monkeypatch.setattr("backstay.repository.values.intents.is_dead", lambda *_, **__: False)
    manager = world.stored.manager(MetadataGraph())
    manager.delete_snapshot(world.first)
    with pytest.raises(ValueBusy):
        manager.garbage_collect()
    assert world.first in world.stored.repository.snapshots.graph_deletions.marked()
    monkeypatch.undo()
    assert manager.garbage_collect() == [world.a]
