"""What each copy can do, such as thawing, counts for it alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backstay.errors import ObjectFrozen, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.storage.probing import probe_capabilities
from backstay.testing import FakeClock, Fault
from backstay.testing.glacier import GlacierStorage
from tests.storage.mirrored.places import DATA, PACK, SNAPSHOT, Place, World


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
    barrier = threading.Barrier(2, timeout=60)

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
