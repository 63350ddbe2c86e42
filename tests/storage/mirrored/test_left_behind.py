"""A copy that was out of reach gets what it lacks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backstay.storage.backend import ObjectInfo
from backstay.storage.mirrored import Mirrored
from backstay.testing import FakeClock, Fault
from tests.storage.mirrored.places import DATA, PACK, SNAPSHOT, Place, World


def test_a_copy_that_failed_gets_nothing_more_from_this_process(world: World) -> None:
    mirror = world.mirror(quorum=1)
    mirror.store("keys/x", b"")
    world.b.script(Fault(kind="error_before", operation="store"))
    mirror.store(PACK, DATA)
    mirror.store(SNAPSHOT, b"manifest")
    assert world.b.names() == ["keys/x", "repo.json"], "a snapshot without its packs would be worse than none"
    assert len(world.warnings) == 1


def test_the_next_writer_sends_what_a_copy_lacks_before_anything_new(world: World) -> None:
    world.b.unplug()
    with world.mirror(quorum=1) as mirror:
        for name in (PACK, SNAPSHOT, "index/x", "keys/x"):
            mirror.store(name, DATA)
    world.b.heal()
    with world.mirror(quorum=1) as mirror:
        mirror.store("snapshots/new", b"")
    stored = [call.name for call in world.b.calls if call.operation == "store" and call.fault is None]
    assert stored == ["keys/x", PACK, "index/x", SNAPSHOT, "snapshots/new"]
    assert world.a.names() == world.b.names()


def test_what_a_writer_left_that_died_is_sent_by_the_next(world: World) -> None:
    dead = world.mirror()
    dead.store("keys/x", b"")
    world.a.inner.store(PACK, DATA)  # it died before it came to the other copy
    with world.mirror() as mirror:
        mirror.store("index/x", b"")
    assert world.a.names() == world.b.names()


def test_what_was_stored_without_the_copy_is_sent_by_the_next_writer_that_names_it(world: World) -> None:
    world.a.store(PACK, DATA)
    world.a.store("index/x", b"")
    world.a.store(SNAPSHOT, b"by a host that knows of no copy")
    world.mirror().store("index/y", b"")
    assert world.a.names() == world.b.names()


def test_nothing_is_deleted_from_a_copy_before_it_has_what_took_its_place(world: World) -> None:
    with world.mirror() as mirror:
        mirror.store("index/old", b"")
    world.a.store("index/new", b"by a collection that knows of no copy")
    world.b.calls.clear()
    world.mirror().delete("index/old")
    changed = [(call.operation, call.name) for call in world.b.calls if call.operation in ("store", "delete")]
    assert changed == [("store", "index/new"), ("delete", "index/old"), ("delete", "index/old")]


def test_a_copy_under_another_address_gets_what_it_lacks(world: World) -> None:
    world.b.unplug()
    with world.mirror(quorum=1) as mirror:
        mirror.store(PACK, DATA)
    world.b.heal()
    world.b.name = "moved"
    with world.mirror() as mirror:
        mirror.store("index/x", b"")
    assert world.a.names() == world.b.names()


class Busy(Place):
    """A store in which something happens at the first call of a kind while copies are compared."""

    def __init__(self, place: Place, operation: str, event: Callable[[Place], None]) -> None:
        super().__init__(place.name, FakeClock())
        self.inner, self._operation, self._event = place.inner, operation, event
        self._is_due = True

    def _happen(self, operation: str) -> None:
        if self._is_due and operation == self._operation:
            self._is_due = False
            self._event(self)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """No single moment, as with most stores: what comes first in crash order was looked for first."""
        self._happen(f"before list {prefix}")
        early = [*super().list(prefix)]
        self._happen(f"list {prefix}")
        late = [info for info in super().list(prefix) if info.name.startswith(("index/", "snapshots/"))]
        return iter({info.name: info for info in (*early, *late)}.values())

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._happen(f"retrieve {name}")
        return super().retrieve(name, start=start, length=length)


@pytest.mark.parametrize("after", ["list snapshots/", "list index/", "list "])
def test_what_is_committed_while_copies_are_compared_is_sent_whole_or_later(world: World, after: str) -> None:
    def commit(place: Place) -> None:
        place.inner.store(PACK, DATA)
        place.inner.store("index/x", b"")
        place.inner.store(SNAPSHOT, b"")

    Mirrored([Busy(world.a, after, commit), world.b]).store("keys/x", b"")
    sent = [name in world.b.names() for name in (PACK, "index/x", SNAPSHOT)]
    assert sent == sorted(sent, reverse=True)
    world.mirror().store("keys/y", b"")
    assert world.a.names() == world.b.names()


@pytest.mark.parametrize("moment", ["list snapshots/", "list gc/", "list index/", "before list ", "list "])
def test_no_verdict_is_sent_without_the_segment_that_it_relies_on(world: World, moment: str) -> None:
    def collect(place: Place) -> None:
        for name in (PACK, "index/rewritten", "gc/00000001.done"):
            place.inner.store(name, DATA)

    Mirrored([Busy(world.a, moment, collect), world.b]).store("keys/x", b"")
    assert "index/rewritten" in world.b.names() or "gc/00000001.done" not in world.b.names()
    world.mirror().store("keys/y", b"")
    assert world.a.names() == world.b.names()


def test_no_snapshot_is_sent_whose_packs_were_rewritten_meanwhile(world: World) -> None:
    for name in (PACK, "index/old", SNAPSHOT):
        world.a.store(name, DATA)

    def collect(place: Place) -> None:
        place.inner.store("index/new", b"")
        place.inner.delete("index/old")
        place.inner.delete(PACK)

    Mirrored([Busy(world.a, f"retrieve {PACK}", collect), world.b]).store("keys/x", b"")
    assert world.b.names() == ["index/new", "keys/x", "repo.json", SNAPSHOT]
    stored = [call.name for call in world.b.calls if call.operation == "store"]
    assert stored.index("index/new") < stored.index(SNAPSHOT)


def test_a_copy_that_collections_do_not_let_catch_up_is_left_behind(world: World) -> None:
    for number in range(9):
        world.a.store(f"index/{number}", b"")

    class Fleeting(Place):
        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            if name.startswith("index/"):
                self.inner.delete(name)
            return super().retrieve(name, start=start, length=length)

    fleeting = Fleeting("a", world.clock)
    fleeting.inner = world.a.inner
    Mirrored([fleeting, world.b], quorum=1, warn=world.warnings.append).store(SNAPSHOT, b"")
    assert world.b.names() == ["repo.json"]
    assert "deleted meanwhile" in world.warnings[0]


def test_damage_is_not_sent(world: World) -> None:
    world.b.unplug()
    with world.mirror(quorum=1) as mirror:
        mirror.store(PACK, DATA)
    world.b.heal()
    world.a.inner.store(PACK, b"damaged", overwrite=True)
    with world.mirror() as mirror:
        mirror.store("index/x", b"")
    assert not world.b.inner.exists(PACK)
    assert "damaged" in world.warnings[-1]


def test_an_object_is_deleted_from_a_copy_later(world: World) -> None:
    with world.mirror() as mirror:
        mirror.store("index/old", b"")
        world.b.script(Fault(kind="error_before", operation="delete"))
        mirror.delete("index/old")
    assert "index/old" in world.b.names()
    assert world.a.marks() == ["deleted"]
    with world.mirror() as mirror:
        mirror.store("index/new", b"")
    assert world.b.names() == ["index/new", "repo.json"]
    assert world.a.marks() == []


def test_an_object_that_the_first_copy_lost_is_not_deleted_from_the_other(world: World) -> None:
    with world.mirror() as mirror:
        mirror.store(PACK, DATA)
    world.b.unplug()
    with world.mirror(quorum=1) as mirror:
        mirror.store("index/x", b"")
    world.a.inner.delete(PACK)
    world.b.heal()
    with world.mirror() as mirror:
        mirror.store("index/y", b"")
    assert world.b.inner.retrieve(PACK) == DATA
