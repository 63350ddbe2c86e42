"""Several stores as one: who decides, who follows, and what is done when one is out of reach."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from backstay.errors import InvalidRequest, ObjectExists, ObjectFrozen, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, Capabilities, StorageBackend
from backstay.storage.crash_order import in_crash_order
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.storage.probing import probe_capabilities
from backstay.testing import FakeClock, Fault, FaultyBackend, StorageConformance
from backstay.testing.faults import Operation
from backstay.testing.glacier import GlacierStorage

DATA = b"the bytes of a pack" * 10
PACK = f"packs/ab/{hashlib.sha256(DATA).hexdigest()}"
SNAPSHOT = "snapshots/01arz3ndektsv4rrffq69g5fav"
OPERATIONS: tuple[Operation, ...] = ("store", "retrieve", "delete", "list", "stat")


class Place(FaultyBackend):
    """A store in memory that can be unplugged."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        super().__init__(MemoryStorage(clock=clock))
        self.name = name

    @property
    def url(self) -> str:
        return f"memory:{self.name}"

    def unplug(self) -> None:
        self.script(*(Fault(kind="error_before", operation=each, repeat=True) for each in OPERATIONS))

    def names(self) -> list[str]:
        return sorted(info.name for info in self.inner.list() if not info.name.startswith("mirror/"))

    def marks(self) -> list[str]:
        marks = (info.name.split("/") for info in self.inner.list("mirror/"))
        return sorted(mark[2] for mark in marks if mark[1] != "first")


@dataclass
class World:
    clock: FakeClock = field(default_factory=FakeClock)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = [Place(name, self.clock) for name in "abc"]
        self.a, self.b, self.c = self.places

    def mirror(self, count: int = 2, *, quorum: int | None = None) -> Mirrored:
        """What a new process sees."""
        return Mirrored(self.places[:count], quorum=quorum, warn=self.warnings.append)


@pytest.fixture
def world() -> World:
    made = World()
    for place in made.places:
        place.inner.store("repo.json", b"{}")
    return made


class TestMirrored(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        world = World()
        return Mirrored(world.places)


# --- storing ---


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


def test_two_stores_cannot_both_decide(world: World) -> None:
    with world.mirror() as mirror:
        mirror.store(PACK, DATA)
    swapped = Mirrored([world.b, world.a])
    assert swapped.retrieve(PACK) == DATA
    with pytest.raises(InvalidRequest, match="was the first copy of a mirror"):
        swapped.store(SNAPSHOT, b"")
    assert not world.b.inner.exists(SNAPSHOT)


# --- a copy that is left behind ---


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


# --- what the copies can do ---


class Deep(GlacierStorage):
    """Freezes packs."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.name = name

    @property
    def url(self) -> str:
        return f"memory:{self.name}"


def frozen(world: World, *others: StorageBackend) -> tuple[Deep, Mirrored]:
    """A mirror whose first copy has frozen a pack."""
    deep = Deep("deep", world.clock)
    mirror = Mirrored([deep, *others], quorum=1)
    mirror.store(PACK, DATA)
    return deep, mirror


def test_a_mirror_of_an_archive_thaws(world: World) -> None:
    deep, mirror = frozen(world, Deep("deeper", world.clock))
    with pytest.raises(ObjectFrozen):
        mirror.retrieve(PACK)
    archive = mirror.archive()
    assert archive is not None
    assert archive.thaw_state(PACK) == "cold"
    assert archive.holds(PACK, DATA)
    assert not archive.holds(PACK, b"other")
    archive.thaw([PACK], days=1)
    assert archive.thaw_state(PACK) == "thawing"
    world.clock.advance(archive.usual_s)
    assert archive.thaw_state(PACK) == "ready"
    assert mirror.retrieve(PACK) == DATA
    assert deep.batches == [(PACK,)]
    with pytest.raises(ObjectNotFound):
        archive.thaw_state("packs/none")


def test_what_another_copy_gives_at_once_is_not_thawed(world: World) -> None:
    world.b.inner.delete("repo.json")
    deep, mirror = frozen(world, world.b)
    archive = mirror.archive()
    assert archive is not None
    assert archive.thaw_state(PACK) == "hot"
    archive.thaw([PACK], days=1)
    assert deep.batches == []
    assert mirror.retrieve(PACK) == DATA
    world.b.inner.delete(PACK)
    archive.thaw([PACK], days=1)
    assert deep.batches == [(PACK,)]


def test_what_the_other_copy_lost_or_cannot_give_is_thawed(world: World) -> None:
    world.b.inner.delete("repo.json")
    deep, mirror = frozen(world, world.b)
    world.b.unplug()
    archive = mirror.archive()
    assert archive is not None
    archive.thaw([PACK], days=1)
    assert deep.batches == [(PACK,)]
    with pytest.raises(StorageUnavailable):
        archive.thaw_state("packs/none")


def test_a_mirror_without_an_archive_has_none(world: World) -> None:
    assert world.mirror(3).archive() is None


class Careful(MemoryStorage):
    """Says that it checks what arrives."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.tried: list[str] = []

    @property
    def url(self) -> str:
        return f"memory:{self.name}"

    def refuses_damage(self, name: str) -> bool:
        self.tried.append(name)
        return True


def test_each_copy_tries_whether_it_refuses_damage(world: World) -> None:
    first, second = Careful("first"), Careful("second")
    mirror = Mirrored([first, second])
    assert probe_capabilities(mirror).checksums
    assert second.tried == [], "it may be no copy of this repository"
    mirror.store(PACK, DATA)
    mirror.store(SNAPSHOT, b"manifest")
    assert (len(first.tried), len(second.tried)) == (1, 1)
    assert second.tried[0].startswith("probe/")


class Meeting(Place):
    """Packs are stored by two threads at once or not at all."""

    parallel = 4
    barrier = threading.Barrier(2, timeout=20)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith("packs/"):
            self.barrier.wait()
        super().store(name, data, overwrite=overwrite)


def test_a_copy_that_takes_several_objects_at_once_gets_them(world: World) -> None:
    meeting = Meeting("b", world.clock)
    meeting.inner.store("repo.json", b"{}")
    mirror = Mirrored([world.a, meeting], quorum=1)
    assert mirror.parallel == 4
    with ThreadPoolExecutor(2) as pool:
        [*pool.map(mirror.store, ("packs/1", "packs/2"), (b"1", b"2"))]
        meeting.script(Fault(kind="error_before", operation="store", prefix="packs/3"))
        [*pool.map(mirror.store, ("packs/3", "packs/4"), (b"3", b"4"))]
    mirror.store("index/x", b"")
    assert meeting.names() == ["packs/1", "packs/2", "packs/4", "repo.json"], "no index without a pack that it names"


# --- reading ---


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
    names = ["snapshots/a", "index/a", "meta/a", "packs/a", "log/a", "gc/1", "drops/a", "repo.json", "keys/a"]
    assert in_crash_order(names) == [
        "keys/a", "repo.json", "drops/a", "gc/1", "packs/a", "meta/a", "index/a", "log/a", "snapshots/a",
    ]  # fmt: skip
