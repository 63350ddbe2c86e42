"""Packs are repaired although other things are wrong: names that are not theirs, snapshots that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionPlan
from tests.crash.small_world import World, verified
from tests.operations.repairing import damage, objects, two_snapshots


@pytest.fixture
def world(tmp_path: Path) -> World:
    return two_snapshots(tmp_path)


@pytest.mark.parametrize("places", [("packs", "packs"), ("meta", "meta"), ("packs", "meta")])
def test_packs_under_each_others_names_lose_nothing(world: World, places: tuple[str, str]) -> None:
    one, other = objects(world, places[0])[0], objects(world, places[1])[-1]
    swapped = other.read_bytes(), one.read_bytes()
    one.write_bytes(swapped[0])
    other.write_bytes(swapped[1])
    with world.open() as repository:
        result = repair_packs(repository)
        assert result.packs_removed == tuple(sorted((one.name, other.name)))
        assert result.chunks_lost == 0
        world.assert_kept(repository)
    world.assert_sound()


def test_index_packs_and_snapshots_are_repaired_in_this_order_beside_an_unreadable_manifest(world: World) -> None:
    lost = max(world.promised)
    damage(world.directory / "snapshots" / lost)
    damage(objects(world, "packs")[0])
    with world.open() as repository:
        repair_index(repository)
        assert len(repair_packs(repository).packs_removed) == 1
        assert not repository.collections.open_numbers()
        assert repair_snapshots(repository).snapshots_dropped == (lost,)
        assert not verified(repository).findings


def test_a_collection_refuses_an_unreadable_manifest_that_it_has_not_marked(world: World) -> None:
    damage(world.directory / "snapshots" / max(world.promised))
    with world.open() as repository:
        collector = Collector(repository)
        repository.collections.refresh()
        collector.condemn(CollectionPlan(1, (min(world.promised),), {}))
        with pytest.raises(CorruptedBackup, match=max(world.promised)):
            collector.finish(1)
