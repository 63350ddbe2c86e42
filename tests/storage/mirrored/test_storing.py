"""Several stores as one: who decides, who follows, and what stays in the first."""

from __future__ import annotations

import pytest

from backstay.errors import InvalidRequest, ObjectExists, StorageUnavailable
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.crash_order import in_crash_order
from backstay.storage.mirrored import Mirrored
from backstay.testing import StorageConformance
from tests.storage.mirrored.places import DATA, PACK, SNAPSHOT, Place, World


class TestMirrored(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        world = World()
        return Mirrored(world.places)


def test_every_copy_gets_every_object(world: World) -> None:
    with world.mirror(3) as mirror:
        mirror.store(PACK, DATA)
        mirror.store(SNAPSHOT, b"manifest")
    for place in world.places:
        assert place.inner.retrieve(PACK) == DATA
        assert place.inner.retrieve(SNAPSHOT) == b"manifest"
        assert place.marks() == []


def test_the_first_copy_decides(world: World) -> None:
    world.b.inner.store(SNAPSHOT, b"what lost a race long ago")
    mirror = world.mirror()
    mirror.store(SNAPSHOT, b"the winner")
    assert world.b.inner.retrieve(SNAPSHOT) == b"the winner"
    world.a.inner.store("drops/x", b"first")
    with pytest.raises(ObjectExists):
        mirror.store("drops/x", b"second")
    assert not world.b.inner.exists("drops/x")


def test_a_pack_whose_writer_died_half_way_reaches_the_others(world: World) -> None:
    world.a.inner.store(PACK, DATA)
    mirror = world.mirror()
    with pytest.raises(ObjectExists):
        mirror.store(PACK, DATA)
    assert world.b.inner.retrieve(PACK) == DATA


@pytest.mark.parametrize("name", ["sessions/x.000000", "probe/x", "quota/x"])
def test_what_means_something_in_one_store_only_stays_in_the_first(world: World, name: str) -> None:
    mirror = world.mirror()
    mirror.store(name, b"")
    assert world.b.names() == ["repo.json"]
    world.b.inner.store(name, b"stale")
    assert mirror.retrieve(name) == b""
    assert [info.size for info in mirror.list(name)] == [0]
    assert [info.size for info in mirror.list() if info.name == name] == [0]
    mirror.delete(name)
    assert not mirror.exists(name)


def test_without_the_first_copy_nothing_is_stored(world: World) -> None:
    world.a.unplug()
    with pytest.raises(StorageUnavailable):
        world.mirror(quorum=1).store(PACK, DATA)
    assert world.b.names() == ["repo.json"]


def test_all_copies_are_wanted_unless_a_quorum_is_given(world: World) -> None:
    world.b.unplug()
    with pytest.raises(StorageUnavailable, match=r"stored in 1 of 2 copies.*memory:b"):
        world.mirror().store(PACK, DATA)
    world.mirror(quorum=1).store("index/x", b"")
    world.mirror(3, quorum=2).store("index/y", b"")


@pytest.mark.parametrize("quorum", [0, 3])
def test_a_quorum_that_cannot_be(world: World, quorum: int) -> None:
    with pytest.raises(InvalidRequest):
        world.mirror(quorum=quorum)


def test_a_mirror_of_one_store_with_itself_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest):
        Mirrored([world.a, world.a])


@pytest.mark.parametrize("header", [b"another", None])
def test_a_store_that_is_no_copy_is_not_written_into(world: World, header: bytes | None) -> None:
    world.b.inner.delete("repo.json")
    if header is not None:
        world.b.inner.store("repo.json", header)
    before = world.b.names()
    with pytest.raises(InvalidRequest, match="is no copy of the repository"):
        world.mirror().store(PACK, DATA)
    assert world.b.names() == before
    assert not world.a.inner.exists(PACK)


def test_a_store_that_gives_no_parts_is_no_copy(world: World) -> None:
    world.b.capabilities = Capabilities(range_reads=False)
    with pytest.raises(InvalidRequest, match="cannot be a copy"):
        world.mirror().store(PACK, DATA)
    assert world.b.names() == ["repo.json"]


def test_only_the_first_copy_is_asked_what_it_can_do(world: World) -> None:
    class Silent(Place):
        """Fails when it is asked, as one does that is out of reach."""

        @property
        def capabilities(self) -> Capabilities:
            raise StorageUnavailable(f"{self.url} is out of reach")

        @capabilities.setter
        def capabilities(self, value: Capabilities) -> None:
            pass

    world.a.capabilities = Capabilities(atomic_create=False)
    assert Mirrored([world.a, Silent("b", world.clock)]).capabilities == Capabilities(atomic_create=False)


@pytest.mark.parametrize("is_known", [False, True])
def test_the_first_store_under_another_name_is_no_copy_of_it(world: World, is_known: bool) -> None:
    if is_known:
        world.mirror().store("keys/x", b"")
    link = Place("link", world.clock)
    link.inner = world.a.inner
    with pytest.raises(InvalidRequest, match="is or was the first copy"):
        Mirrored([world.a, link]).store(PACK, DATA)
    assert not world.a.inner.exists(PACK)


def test_two_stores_cannot_both_decide(world: World) -> None:
    with world.mirror() as mirror:
        mirror.store(PACK, DATA)
    swapped = Mirrored([world.b, world.a])
    assert swapped.retrieve(PACK) == DATA
    with pytest.raises(InvalidRequest, match="was the first copy of a mirror"):
        swapped.store(SNAPSHOT, b"")
    assert not world.b.inner.exists(SNAPSHOT)


@pytest.mark.parametrize("name", ["sessions/x.000000", "lease/x.000000", "quota/x"])
def test_what_is_about_one_store_stays_in_the_first_copy(world: World, name: str) -> None:
    with world.mirror() as mirror:
        mirror.store(name, b"")
        mirror.store(PACK, DATA)
        assert [info.name for info in mirror.list(f"{name.partition('/')[0]}/")] == [name]
    assert world.a.inner.exists(name)
    assert not world.b.inner.exists(name)


def test_another_stores_lease_is_not_seen(world: World) -> None:
    world.b.inner.store("lease/x.000000", b"")
    with world.mirror() as mirror:
        assert list(mirror.list("lease/")) == []
        assert "lease/x.000000" not in [info.name for info in mirror.list()]


def test_crash_order() -> None:
    order = [
        "keys/a", "repo.json", "drops/a", "gc/1", "packs/a", "meta/a", "index/a", "gc/1.done", "log/a", "snapshots/a",
    ]  # fmt: skip
    assert in_crash_order(reversed(order)) == order
