"""What --delete takes away: only what was asked for and the snapshot does not hold, in every way of restoring."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.errors import InvalidRequest
from backstay.operations.restore.in_place import original_place, restore_in_place
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from tests.operations.in_place_world import InPlaceWorld, write

Way: TypeAlias = Callable[[InPlaceWorld, RestoreOptions], object]


def direct(world: InPlaceWorld, options: RestoreOptions) -> object:
    place = original_place(world.repository, world.manifest, options.path)
    return run_restore(world.repository, world.manifest, place, options)


def staged(world: InPlaceWorld, options: RestoreOptions) -> object:
    return restore_in_place(world.repository, world.manifest, options)


def planned(world: InPlaceWorld, options: RestoreOptions) -> list[str]:
    """The paths that a dry run tells, relative to what was backed up."""
    place = original_place(world.repository, world.manifest, options.path)
    plan = plan_restore(world.repository, world.manifest, place, options)
    assert plan.delete_count == len(plan.to_delete)
    return sorted(os.path.relpath(path, world.origin) for path in plan.to_delete)


def there(world: InPlaceWorld) -> list[str]:
    return sorted(str(path.relative_to(world.origin)) for path in world.origin.rglob("*"))


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    return InPlaceWorld(tmp_path)


ways = pytest.mark.parametrize("way", [direct, staged])


@pytest.mark.parametrize("way", [direct, staged, planned])
def test_nothing_beside_a_single_file_is_deleted(world: InPlaceWorld, way: Way) -> None:
    for name in ("a", "b", "d/c"):
        write(world.origin / name, name)
    world.snapshot()
    write(world.origin / "new", "new")
    options = RestoreOptions(path=os.fsencode(world.origin / "a"), in_place=True, delete=True)
    with pytest.raises(InvalidRequest, match="--delete has no meaning"):
        way(world, options)
    assert there(world) == ["a", "b", "d", "d/c", "new"]
