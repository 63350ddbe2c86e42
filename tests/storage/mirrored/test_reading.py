"""Who reads gets what any copy has whole."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from backstay.errors import ObjectNotFound, StorageUnavailable
from backstay.storage.mirrored import Mirrored
from backstay.testing import Fault
from tests.storage.mirrored.places import DATA, PACK, SNAPSHOT, Place, World


@pytest.fixture
def full(world: World) -> World:
    with world.mirror(3) as mirror:
        mirror.store(PACK, DATA)
        mirror.store(SNAPSHOT, b"manifest")
    return world


def unplug(place: Place) -> None:
    place.unplug()


def lose(place: Place) -> None:
    place.inner.delete(PACK)


def damage(place: Place) -> None:
    place.inner.store(PACK, b"x" + DATA[1:], overwrite=True)


def cut(place: Place) -> None:
    place.inner.store(PACK, DATA[:5], overwrite=True)


@pytest.mark.parametrize("spoil", [unplug, lose, damage, cut])
def test_reading_takes_the_first_copy_that_is_whole(full: World, spoil: Callable[[Place], None]) -> None:
    spoil(full.a)
    spoil(full.b)
    mirror = full.mirror(3)
    assert mirror.retrieve(PACK) == DATA
    assert mirror.exists(PACK)
    if spoil is not damage:  # parts of an object say nothing about the whole: their reader asks each copy
        assert mirror.retrieve(PACK, start=6, length=10) == DATA[6:16]


def test_damage_everywhere_is_shown_to_the_reader(full: World) -> None:
    for place in full.places:
        damage(place)
    assert full.mirror(3).retrieve(PACK) == b"x" + DATA[1:]


def test_absent_is_what_all_copies_say(full: World) -> None:
    mirror = full.mirror(3)
    with pytest.raises(ObjectNotFound):
        mirror.retrieve("index/none")
    assert not mirror.exists("index/none")
    full.c.unplug()
    for call in (mirror.retrieve, mirror.stat, mirror.exists):
        with pytest.raises(StorageUnavailable):
            call("index/none")


def test_a_copy_that_failed_is_asked_last(full: World) -> None:
    full.a.unplug()
    full.a.calls.clear()
    mirror = full.mirror(3)
    for _ in range(5):
        mirror.retrieve(PACK)
    assert len(full.a.calls) == 1
    full.a.heal()
    full.b.unplug()
    assert mirror.retrieve(SNAPSHOT) == b"manifest"


def test_who_reads_while_the_copies_change_their_order_finds_what_is_there(full: World) -> None:
    found: list[bytes] = []

    class Between(Place):
        """Another thread reads while this copy is compared with the one that failed."""

        def __eq__(self, other: object) -> bool:
            reader = threading.Thread(target=lambda: found.append(mirror.retrieve(SNAPSHOT)))
            reader.start()
            reader.join()
            return self is other

        __hash__ = Place.__hash__

    other = Between("b", full.clock)
    other.inner.store(PACK, DATA)
    mirror = Mirrored([full.a, other])
    full.a.script(Fault(kind="error_before", operation="retrieve"))
    assert mirror.retrieve(PACK) == DATA
    assert found == [b"manifest"]


def test_a_listing_holds_what_any_copy_holds(full: World) -> None:
    full.a.inner.delete(PACK)
    full.b.inner.delete(SNAPSHOT)
    names = [info.name for info in full.mirror(3).list()]
    assert sorted(names) == [PACK, "repo.json", SNAPSHOT]


def test_a_copy_that_was_missing_in_a_listing_is_not_waited_for_again(full: World) -> None:
    full.a.unplug()
    mirror = full.mirror(3)
    for _ in range(5):
        assert PACK in [info.name for info in mirror.list()]
    assert sum(call.operation == "list" and bool(call.fault) for call in full.a.calls) == 1
    full.a.heal()
    full.b.unplug()
    full.c.unplug()
    assert PACK in [info.name for info in mirror.list()]


def test_a_listing_without_any_copy_fails(full: World) -> None:
    for place in full.places:
        place.unplug()
    with pytest.raises(StorageUnavailable):
        full.mirror(3).list()


def test_after_a_listing_that_lacked_a_copy_nothing_is_deleted_or_condemned(full: World) -> None:
    full.b.unplug()
    mirror = full.mirror(quorum=1)
    assert PACK in [info.name for info in mirror.list()]
    full.b.heal()
    with pytest.raises(StorageUnavailable, match="nothing is deleted while a copy cannot be seen"):
        mirror.delete(PACK)
    with pytest.raises(StorageUnavailable, match="nothing is deleted while a copy cannot be seen"):
        mirror.store("gc/00000001", b"")
    mirror.store("index/x", b"")
    mirror.store("sessions/x.000000", b"")
    mirror.delete("sessions/x.000000")
    assert full.a.inner.exists(PACK)


def test_after_a_listing_that_lacked_the_first_copy_nothing_is_written(full: World) -> None:
    full.a.unplug()
    mirror = full.mirror(quorum=1)
    assert PACK in [info.name for info in mirror.list()]
    full.a.heal()
    for name in (SNAPSHOT, "sessions/x.000000", "index/x"):
        with pytest.raises(StorageUnavailable, match="the other copies may be old"):
            mirror.store(name, b"")
    full.mirror().store("index/x", b"")
