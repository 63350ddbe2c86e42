"""What both copies lost is told by name, as far as anything that is left names it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup, NoRepository
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.repair.known_loss import INDEX, PACKS
from backstay.operations.repair.result import RepairResult
from backstay.operations.repair.run import repair_index
from backstay.repository.format import slot_name
from backstay.repository.repository import Repository
from backstay.storage.crash_order import is_transient
from backstay.storage.mirrored import Mirrored
from backstay.trust.slots import Slot, unwrap
from tests.operations.copies import (
    SECRET,
    SPARE,
    Store,
    back_up,
    damaged,
    make_repository,
    make_source,
    open_alone,
    open_mirrored,
)


@dataclass
class World:
    """A repository as it was written, with an object of every kind."""

    objects: dict[str, bytes]
    source: Path
    slot: str  # the key slot of SECRET
    newest: str

    def told_of(self, name: str) -> str | None:
        """What is said when an object is gone from both copies."""
        if name.startswith("index/"):
            return INDEX  # its name is in its bytes alone
        if name.startswith("keys/removed/") or name.endswith(".compromised"):
            return None  # only they themselves say what they say
        if name.startswith("wal/"):
            return None  # that a segment is missing is seen by those around it: `pg windows`
        if name.startswith("attestations/"):
            return None  # only whoever has a policy knows that somebody has not attested
        if name == f"snapshots/{self.newest}":
            return None  # until another follows it, or a collection sees it
        return name

    def pair(self, without: Iterable[str] = ()) -> tuple[Store, Store]:
        left = {name: data for name, data in self.objects.items() if name not in set(without)}
        return Store("a", left), Store("b", left)

    def heal(self, a: Store, b: Store) -> RepairResult:
        secret = SECRET if a.exists(self.slot) and self.objects[self.slot] == a.retrieve(self.slot) else SPARE
        with open_mirrored(a, b, secret=secret) as repository:
            return heal_from_copy(repository, a, b)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    source = make_source(tmp_path_factory.mktemp("world") / "source")
    first, second = Store("first"), Store("second")
    make_repository(Mirrored([first, second]), source)
    with Repository.open(Mirrored([first, second]), SECRET) as repository:
        for number in range(2):  # a pack each
            (source / f"later-{number}").write_bytes(random.Random(number).randbytes(5000))
            back_up(repository, source)
        newest = repository.snapshots.taken()[-1]
    objects = {name: data for name, data in first.objects().items() if not is_transient(name)}
    assert objects == {name: data for name, data in second.objects().items() if not is_transient(name)}
    slots = {name: data for name, data in objects.items() if name.startswith("keys/slots/")}
    slot = next(name for name, data in slots.items() if unwrap(Slot.decode(data), SECRET) is not None)
    return World(objects, source, slot, newest)


def heal(store: Store) -> RepairResult:
    """With a copy that has the same."""
    copy = Store("copy", {name: data for name, data in store.objects().items() if not is_transient(name)})
    with open_mirrored(store, copy) as repository:
        return heal_from_copy(repository, store, copy)


def subjects(result: RepairResult) -> list[str]:
    return sorted(finding.subject for finding in result.findings)


def of_kind(world: World, prefix: str) -> list[str]:
    return sorted(name for name in world.objects if name.startswith(prefix))


def test_nothing_is_told_of_a_whole_repository(world: World) -> None:
    result = world.heal(*world.pair())
    assert (result.changed, result.findings, result.lost) == (False, (), ())


def test_each_object_that_both_lost_is_told_or_not_needed(world: World) -> None:
    for name in sorted(world.objects.keys() - {"repo.json"}):
        a, b = world.pair(without=[name])
        result = world.heal(a, b)
        told = world.told_of(name)
        assert subjects(result) == ([told] if told is not None else []), name
        assert all(finding.hint for finding in result.findings)
        assert result.objects_healed == (), name
        if name.startswith("index/"):
            assert result.lost == (), "the packs are there"
            assert "repair index" in result.findings[0].hint


def test_each_object_that_is_damaged_in_both_is_told(world: World) -> None:
    for seed, name in enumerate(sorted(world.objects.keys() - {"repo.json"})):
        a, b = world.pair()
        for store in (a, b):
            store.store(name, damaged(world.objects[name], random.Random(seed)), overwrite=True)
        result = world.heal(a, b)
        assert subjects(result) == [name]
        assert result.objects_healed == (), name


@pytest.mark.parametrize("lose", [False, True], ids=["damaged in both", "lost in one"])
def test_a_flip_of_a_bit_of_the_epoch_is_told(world: World, lose: bool) -> None:
    """Be it another epoch that there is, one that there is not, or zero, which there cannot be."""
    for name in (of_kind(world, "snapshots/")[0], of_kind(world, "snapshots/")[-1]):
        for bit in range(24 * 8, 28 * 8):
            flipped = bytearray(world.objects[name])
            flipped[bit // 8] ^= 1 << bit % 8
            a, b = world.pair()
            a.store(name, bytes(flipped), overwrite=True)
            b.store(name, bytes(flipped), overwrite=True)
            if lose:
                a.delete(name)
            assert subjects(world.heal(a, b)) == [name], bit


def test_what_one_lost_and_the_other_has_damaged_is_told(world: World) -> None:
    for seed, name in enumerate(sorted(world.objects.keys() - {"repo.json"})):
        a, b = world.pair()
        a.delete(name)
        b.store(name, damaged(world.objects[name], random.Random(seed)), overwrite=True)
        result = world.heal(a, b)
        assert subjects(result) == [name]
        assert not a.exists(name)


def test_without_repo_json_no_copy_opens(world: World) -> None:
    a, b = world.pair(without=["repo.json"])
    with pytest.raises(NoRepository):
        world.heal(a, b)
    for store in (a, b):
        store.store("repo.json", damaged(world.objects["repo.json"], random.Random(1)))
    with pytest.raises(CorruptedBackup):
        world.heal(a, b)


def test_losses_of_every_kind_at_once_are_all_told(world: World) -> None:
    kinds = ("keys/slots/", "drops/", "packs/", "meta/")
    lost = {of_kind(world, kind)[-1] for kind in kinds} | {of_kind(world, "snapshots/")[0], "gc/00000001.sessions"}
    a, b = world.pair(without=lost)
    torn = of_kind(world, "packs/")[0]
    only_here = of_kind(world, "packs/")[1]
    for store in (a, b):
        store.store(torn, b"torn", overwrite=True)
    a.delete(only_here)
    result = world.heal(a, b)
    assert subjects(result) == sorted(lost | {torn})
    assert result.objects_healed == (only_here,)


def test_random_losses_in_both_are_told_exactly(world: World) -> None:
    """Data packs and key slots are named by what is left, whatever else of their kind is gone."""
    rng = random.Random(3)
    packs = of_kind(world, "packs/")
    for _ in range(3):
        both = set(rng.sample(packs, 2))
        a, b = world.pair(without=both)
        for name in sorted(world.objects.keys() - both - {"repo.json", world.slot}):
            if rng.random() < 0.6:
                (a if rng.random() < 0.5 else b).delete(name)
        result = world.heal(a, b)
        assert subjects(result) == sorted(both)
        assert a.objects() == {name: data for name, data in world.objects.items() if name not in both}


def test_packs_that_only_snapshots_name_are_told_without_an_index(world: World) -> None:
    with open_alone(Store("a", world.objects)) as repository:
        named = {digest.hex() for manifest in repository.snapshots.live() for digest in manifest.packs}
    pack = next(name for name in of_kind(world, "packs/") if name.rpartition("/")[2] in named)
    a, b = world.pair(without=[*of_kind(world, "index/"), pack])
    assert subjects(world.heal(a, b)) == sorted([INDEX, pack.rpartition("/")[2]])


def test_packs_that_are_damaged_and_not_indexed_are_told_once(world: World) -> None:
    pack = of_kind(world, "packs/")[0]
    a, b = world.pair(without=of_kind(world, "index/"))
    for store in (a, b):
        store.store(pack, b"torn", overwrite=True)
    assert subjects(world.heal(a, b)) == [INDEX, pack]


def test_packs_that_nothing_names_are_told_by_their_files_when_the_index_is_repaired(tmp_path: Path) -> None:
    """A collection wrote them: no snapshot names them."""
    a = Store("a")
    make_repository(a, make_source(tmp_path / "source"))
    with open_alone(a) as repository:
        named = {digest.hex() for manifest in repository.snapshots.live() for digest in manifest.packs}
        unnamed = [name for name in a.objects() if name.startswith("packs/") and name.rpartition("/")[2] not in named]
        assert unnamed, "what the compromised key had sealed was sealed anew"
        for name in [*(name for name in a.objects() if name.startswith("index/")), *unnamed]:
            a.delete(name)
    assert subjects(heal(a)) == [INDEX]
    with open_alone(a) as repository:
        repair_index(repository)
    result = heal(a)
    assert subjects(result) == [PACKS]
    assert result.lost


def test_packs_that_snapshots_name_are_told_with_their_files_when_the_index_is_repaired(world: World) -> None:
    a = Store("a", world.objects)
    with open_alone(a) as repository:
        named = {digest.hex() for manifest in repository.snapshots.live() for digest in manifest.packs}
    pack = next(name for name in of_kind(world, "packs/") if name.rpartition("/")[2] in named)
    for name in [*of_kind(world, "index/"), pack]:
        a.delete(name)
    with open_alone(a) as repository:
        repair_index(repository)
    result = heal(a)
    assert subjects(result) == [pack.rpartition("/")[2]]
    assert result.lost


def test_damage_is_not_brought_along_for_want_of_a_key(world: World) -> None:
    pack = of_kind(world, "packs/")[0]
    a, b = world.pair(without=["keys/epochs/00000002"])
    a.delete(pack)
    spoilt = bytearray(world.objects[pack])
    spoilt[-1] ^= 1
    b.store(pack, spoilt, overwrite=True)
    result = world.heal(a, b)
    assert subjects(result) == ["keys/epochs/00000002", pack]
    assert not a.exists(pack)


def test_a_lost_key_is_told_and_not_all_that_it_sealed(world: World) -> None:
    for number in (1, 2):
        name = f"keys/epochs/{number:08d}"
        a, b = world.pair(without=[name])
        only_there = next(
            each for each in of_kind(world, "snapshots/") if world.objects[each][24:28] == number.to_bytes(4, "big")
        )
        a.delete(only_there)
        result = world.heal(a, b)
        assert subjects(result) == [name]
        assert a.retrieve(only_there) == world.objects[only_there], "nothing says that it is damaged"


def test_files_whose_key_is_lost_are_told(world: World) -> None:
    a = Store("a", world.objects)
    with open_alone(a) as repository:
        repository.keyring.begin_epoch(repository.clock)
        (world.source / "sealed").write_bytes(random.Random(6).randbytes(1000))
        back_up(repository, world.source)
        repository.keyring.begin_epoch(repository.clock)
        (world.source / "another").write_bytes(random.Random(7).randbytes(1000))
        last = back_up(repository, world.source)
    a.delete("keys/epochs/00000003")
    result = world.heal(a, Store("b", a.objects()))
    assert subjects(result) == ["keys/epochs/00000003"]
    assert f"{world.source}/sealed" in {lost.path for lost in result.lost if lost.snapshot == last}
    assert f"{world.source}/another" not in {lost.path for lost in result.lost}


def test_a_forged_epoch_is_damage_and_no_lost_key(world: World) -> None:
    name = of_kind(world, "snapshots/")[-1]
    a, b = world.pair(without=[name])
    forged = bytearray(world.objects[name])
    forged[24:28] = b"\0\0\1\7"
    b.store(name, bytes(forged))
    assert subjects(world.heal(a, b)) == [name]


def test_a_forged_epoch_that_was_mirrored_is_damage_too(world: World) -> None:
    name = of_kind(world, "snapshots/")[-1]
    forged = bytearray(world.objects[name])
    forged[24:28] = b"\0\0\1\7"
    a, b = world.pair()
    for store in (a, b):
        store.store(name, bytes(forged), overwrite=True)
    assert subjects(world.heal(a, b)) == [name]


def test_leftover_packs_of_an_interrupted_writer_are_no_loss(world: World) -> None:
    a, b = Store("a", world.objects), Store("b")
    with open_alone(a) as repository:
        before = set(a.objects())
        back_up(repository, make_source(world.source.parent / "more", files=3))
    fresh = [name for name in set(a.objects()) - before if name.startswith(("snapshots/", "index/"))]
    for name in fresh:
        a.delete(name)
    b = Store("b", a.objects())
    assert world.heal(a, b).findings == ()


def test_a_snapshot_that_nothing_names_cannot_be_missed(world: World) -> None:
    """The newest one, until a snapshot follows it or a collection sees it."""
    a = Store("a", world.objects)
    with open_alone(a) as repository:
        newest = back_up(repository, world.source)
        following = back_up(repository, world.source)
    a.delete(f"snapshots/{following}")
    assert world.heal(a, Store("b", a.objects())).findings == ()
    a = Store("a", {**a.objects()})
    with open_alone(a) as repository:
        back_up(repository, world.source)
    a.delete(f"snapshots/{newest}")
    assert subjects(world.heal(a, Store("b", a.objects()))) == [f"snapshots/{newest}"]


def test_a_record_of_removal_is_told_when_a_later_snapshot_shows_that_the_slot_was_removed(world: World) -> None:
    a = Store("a", world.objects)
    with open_alone(a) as repository:
        spare = next(slot.id for slot in repository.slots.list() if slot.note == "third")
        repository.slots.remove(spare, repository.clock)
        back_up(repository, world.source)
    a.delete(f"keys/removed/{spare}")
    assert subjects(world.heal(a, Store("b", a.objects()))) == [f"keys/removed/{spare}"]
    assert slot_name(bytes.fromhex(spare)) not in a.objects()


def test_a_snapshot_that_was_deleted_is_not_missed(world: World) -> None:
    a = Store("a", world.objects)
    with open_alone(a) as repository:
        one, *_ = repository.snapshots.live()
        repository.snapshots.drop(one.id, "for a test", repository.clock)
    a.delete(f"snapshots/{one.id}")
    assert world.heal(a, Store("b", a.objects())).findings == ()
