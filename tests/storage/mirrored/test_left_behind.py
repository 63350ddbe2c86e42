"""A copy that was out of reach gets what it lacks, and nothing else."""

from __future__ import annotations

from backstay.testing import Fault
from tests.storage.mirrored.places import DATA, PACK, SNAPSHOT, World


def test_a_copy_that_failed_gets_nothing_more_from_this_process(world: World) -> None:
    mirror = world.mirror(quorum=1)
    mirror.store("keys/x", b"")
    world.b.script(Fault(kind="error_before", operation="store"))
    mirror.store(PACK, DATA)
    mirror.store(SNAPSHOT, b"manifest")
    assert world.b.names() == ["keys/x", "repo.json"], "a snapshot without its packs would be worse than none"
    assert len(world.warnings) == 1
    mirror.close()
    assert world.a.marks() == ["behind"]


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
    assert world.a.marks() == []


def test_a_copy_that_is_still_out_of_reach_keeps_its_marks(world: World) -> None:
    world.b.unplug()
    for number in range(3):
        with world.mirror(quorum=1) as mirror:
            mirror.store(f"index/{number}", b"")
    assert world.a.marks() == ["behind"] * 3


def test_what_a_writer_left_that_died_is_sent_by_the_next(world: World) -> None:
    dead = world.mirror()
    dead.store("keys/x", b"")
    world.a.inner.store(PACK, DATA)  # it died before it came to the other copy
    with world.mirror() as mirror:
        mirror.store("index/x", b"")
    assert world.a.names() == world.b.names()
    assert world.a.marks() == ["writer"], "it may live still"
    world.clock.advance(25 * 3600)
    with world.mirror() as mirror:
        mirror.store("index/y", b"")
    assert world.a.marks() == []


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
    assert world.a.marks() == ["behind", "deleted"]
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
