"""Healing where packs lie in a cold tier: they stay there, and what cannot be looked at is not called lost."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backstay.core.quantities import plural
from backstay.errors import InvalidRequest
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.repair.result import RepairResult
from backstay.operations.tiers.moving import plan_move, plan_recall, remove_tier, run_move, run_recall, set_tier
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import is_transient
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.testing import FakeClock, GlacierStorage
from tests.operations.copies import SECRET, Store, back_up, damaged, make_source

DRAWER = "memory:drawer"


@dataclass
class World:
    """A tiered repository in `hot`, and a copy of it without a tier in `flat`; `twin` mirrors the hot store."""

    source: Path
    clock: FakeClock = field(default_factory=FakeClock)
    hot: Store = field(default_factory=lambda: Store("hot"))
    twin: Store = field(default_factory=lambda: Store("twin"))
    flat: Store = field(default_factory=lambda: Store("flat"))
    cold: MemoryStorage = field(default_factory=MemoryStorage)
    attached: bool = True

    def _open_cold(self, address: str, create: bool) -> StorageBackend:
        if not self.attached:
            raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")
        return self.cold

    @property
    def environment(self) -> Environment:
        return Environment(pack_target=256 << 10, threads=2, clock=self.clock, open_cold=self._open_cold)

    def open(self, *stores: StorageBackend) -> Repository:
        backend = Mirrored(stores, quorum=1) if len(stores) > 1 else stores[0]
        return Repository.open(backend, SECRET, environment=self.environment)

    def fill(self) -> None:
        Repository.create(Mirrored([self.hot, self.twin]), SECRET, environment=self.environment).close()
        with self.open(self.hot, self.twin) as repository:
            back_up(repository, self.source)
            (self.source / "more").write_bytes(random.Random(7).randbytes(300_000))
            back_up(repository, self.source)  # another pack
            set_tier(repository, DRAWER, 0)
        with self.open(self.hot, self.twin) as repository:
            run_move(repository, plan_move(repository))
        self.clock.advance(1)
        (self.source / "newer").write_bytes(random.Random(8).randbytes(300_000))
        with self.open(self.hot, self.twin) as repository:
            back_up(repository, self.source)

    def copy(self) -> None:
        with self.open(self.hot, self.twin) as repository:
            copy_objects(repository, self.flat)

    def heal(self, store: StorageBackend, copy: StorageBackend) -> RepairResult:
        with self.open(store, copy) as repository:
            return heal_from_copy(repository, store, copy)

    def assert_whole(self, store: Store) -> None:
        with self.open(store) as repository:
            assert run_verify(repository, None, VerifyOptions(read_data=1)).findings == ()


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(make_source(tmp_path / "source"))
    made.fill()
    made.copy()
    assert len(names(made.cold)) > 1
    assert names(made.hot)
    return made


def names(store: StorageBackend, prefix: str = "packs/") -> set[str]:
    return {info.name for info in store.list(prefix)}


def lasting(store: Store) -> dict[str, bytes]:
    return {name: data for name, data in store.objects().items() if not is_transient(name)}


def nothing_to_do(result: RepairResult) -> bool:
    return (result.changed, result.findings, result.lost) == (False, (), ())


def test_an_intact_tiered_repository_needs_nothing_from_a_copy_or_a_mirror(world: World) -> None:
    before = [lasting(store) for store in (world.hot, world.twin, world.flat)]
    for store, copy in (
        (world.hot, world.flat),
        (world.flat, world.hot),
        (world.hot, world.twin),
        (world.twin, world.hot),
    ):
        assert nothing_to_do(world.heal(store, copy)), (store.place, copy.place)
    assert [lasting(store) for store in (world.hot, world.twin, world.flat)] == before


@pytest.mark.parametrize("from_twin", [True, False])
def test_each_object_of_the_hot_store_comes_back_and_cold_packs_stay_cold(world: World, from_twin: bool) -> None:
    golden = lasting(world.hot)
    copy = world.twin if from_twin else world.flat
    for number, (name, data) in enumerate(sorted(golden.items())):
        if name.startswith("tiers/") and not from_twin:
            continue  # a copy without a tier knows no rule
        world.hot.delete(name)
        if data and number % 2:
            world.hot.store(name, damaged(data, random.Random(name)))
        result = world.heal(world.hot, copy)
        assert (result.objects_healed, result.findings) == ((name,), ())
        assert lasting(world.hot) == golden, name


def test_a_third_of_both_mirrored_hot_stores_lost_and_all_comes_back(world: World) -> None:
    golden, rng = lasting(world.hot), random.Random(5)
    lost = rng.sample(sorted(golden), len(golden) * 6 // 10)
    for number, name in enumerate(lost):
        (world.hot if number % 2 else world.twin).delete(name)
    assert world.heal(world.hot, world.twin).findings == ()
    assert lasting(world.hot) == golden
    assert world.heal(world.twin, world.hot).findings == ()
    assert lasting(world.twin) == golden
    world.assert_whole(world.hot)


def test_a_hot_store_that_is_gone_altogether_comes_back_with_its_tier(world: World) -> None:
    golden = lasting(world.hot)
    world.hot = Store("hot")
    assert world.heal(world.hot, world.twin).findings == ()
    assert lasting(world.hot) == golden


def test_what_the_cold_tier_lost_comes_to_the_hot_store_and_moves_again(world: World) -> None:
    one, two, *rest = sorted(names(world.cold))
    whole = {name: world.cold.retrieve(name) for name in (one, two)}
    world.cold.delete(one)
    world.cold.store(two, damaged(whole[two], random.Random(1)), overwrite=True)
    result = world.heal(world.hot, world.flat)
    assert (set(result.objects_healed), result.findings) == ({one, two}, ())
    assert not names(world.hot) & set(rest)
    world.assert_whole(world.hot)
    with world.open(world.hot) as repository:
        run_move(repository, plan_move(repository))
    assert {name: world.cold.retrieve(name) for name in (one, two)} == whole


def test_what_neither_cold_tier_nor_copy_has_is_lost(world: World) -> None:
    lost = min(names(world.cold))
    world.cold.delete(lost)
    world.flat.delete(lost)
    for store, copy in ((world.hot, world.flat), (world.flat, world.hot), (world.hot, world.twin)):
        result = world.heal(store, copy)
        assert [(finding.subject, finding.severity) for finding in result.findings] == [(lost, "error")]
        assert result.lost


def test_a_copy_without_a_tier_gets_cold_packs_and_no_notes(world: World) -> None:
    golden, lost = lasting(world.flat), min(names(world.cold))
    world.flat.delete(lost)
    assert world.heal(world.flat, world.hot).objects_healed == (lost,)
    assert lasting(world.flat) == golden


@pytest.mark.parametrize("copy", ["flat", "twin"])
def test_a_tier_that_is_away_is_said_and_nothing_of_it_is_lost(world: World, copy: str) -> None:
    world.attached = False
    before = lasting(world.hot)
    result = world.heal(world.hot, getattr(world, copy))
    (finding,) = result.findings
    assert (finding.severity, finding.subject) == ("warning", DRAWER)
    assert "not attached" in finding.message
    assert plural(len(names(world.cold)), "pack") in finding.message
    assert (result.lost, result.changed) == ((), False)
    assert lasting(world.hot) == before


def test_what_a_copy_needs_from_a_tier_that_is_away_is_told_by_name_and_not_as_lost(world: World) -> None:
    missing = min(names(world.cold))
    world.flat.delete(missing)
    world.attached = False
    result = world.heal(world.flat, world.hot)
    assert [finding.subject for finding in result.findings] == [missing]
    assert "cannot be read now" in result.findings[0].message
    assert result.lost == ()


def test_frozen_packs_are_said_and_not_lost(world: World) -> None:
    archive = GlacierStorage(clock=world.clock)
    for info in world.cold.list():
        archive.store(info.name, world.cold.retrieve(info.name))
    world.cold = archive
    for copy in (world.flat, world.twin):
        (finding,) = world.heal(world.hot, copy).findings
        assert finding.severity == "warning"
        assert "frozen" in finding.message
    lost = min(names(archive))
    archive.delete(lost)
    assert world.heal(world.hot, world.flat).objects_healed == (lost,)


def test_a_repository_that_is_an_archive_is_healed_of_what_it_lacks(world: World) -> None:
    archive = GlacierStorage("archive", clock=world.clock)
    for name, data in lasting(world.flat).items():
        archive.store(name, data)
    lost = min(names(archive))
    archive.delete(lost)
    result = world.heal(archive, world.flat)
    assert result.objects_healed == (lost,)
    (finding,) = result.findings
    assert (finding.severity, finding.subject) == ("warning", archive.url)
    assert "are frozen" in finding.message
    world.flat.delete(lost)
    (finding,) = world.heal(world.flat, archive).findings
    assert finding.subject == lost
    assert "cannot be read now" in finding.message


def test_notes_that_both_hot_stores_lost_are_written_again(world: World) -> None:
    golden = lasting(world.hot)
    for name in names(world.hot, "cold/"):
        world.hot.delete(name)
        world.twin.delete(name)
    assert world.heal(world.hot, world.twin).findings == ()
    assert lasting(world.hot) == golden


def test_without_notes_and_tier_packs_are_not_known_to_be_anywhere(world: World) -> None:
    for name in names(world.hot, "cold/"):
        world.hot.delete(name)
        world.twin.delete(name)
    world.attached = False
    result = world.heal(world.hot, world.twin)
    assert {finding.subject for finding in result.findings} == names(world.cold)
    assert all("not attached" in finding.message for finding in result.findings)


def test_a_rule_that_both_lost_is_told_once(world: World) -> None:
    for store in (world.hot, world.twin):
        store.delete("tiers/00000001")
    result = world.heal(world.hot, world.twin)
    assert [finding.subject for finding in result.findings] == ["tiers/"]
    assert "backstay tier set --cold" in result.findings[0].hint
    assert result.lost == ()


def test_a_rule_that_is_damaged_in_both_is_told(world: World) -> None:
    data = damaged(world.hot.retrieve("tiers/00000001"), random.Random(1))
    for store in (world.hot, world.twin):
        store.store("tiers/00000001", data, overwrite=True)
    result = world.heal(world.hot, world.twin)
    assert [finding.subject for finding in result.findings if finding.severity == "error"] == ["tiers/00000001"]
    assert result.lost == ()


def test_notes_of_a_tier_that_was_ended_do_not_come_back(world: World) -> None:
    with world.open(world.hot) as repository:
        run_recall(repository, plan_recall(repository))
        remove_tier(repository)
    before = lasting(world.hot)
    assert names(world.twin, "cold/")
    assert world.heal(world.hot, world.twin).findings == ()
    assert lasting(world.hot) == before
