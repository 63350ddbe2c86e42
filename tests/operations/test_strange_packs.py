"""Whole packs under names that are not theirs."""

from __future__ import annotations

import pytest

from backstay.operations.repair.run import repair_packs
from tests.crash.small_world import World
from tests.operations.test_repair import objects, world

__all__ = ["world"]


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
