"""The ways of restoring to where a snapshot came from, and what a dry run tells of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from backstay.operations.restore.in_place import original_place, restore_in_place
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from tests.operations.in_place_world import InPlaceWorld

Way: TypeAlias = Callable[[InPlaceWorld, RestoreOptions], object]


def direct(world: InPlaceWorld, options: RestoreOptions) -> object:
    place = original_place(world.repository, world.manifest, options.path)
    return run_restore(world.repository, world.manifest, place, options)


def staged(world: InPlaceWorld, options: RestoreOptions) -> object:
    return restore_in_place(world.repository, world.manifest, options)


def planned(world: InPlaceWorld, options: RestoreOptions) -> list[str]:
    """The paths that would be deleted, relative to what was backed up."""
    place = original_place(world.repository, world.manifest, options.path)
    plan = plan_restore(world.repository, world.manifest, place, options)
    assert plan.delete_count == len(plan.to_delete)
    return sorted(os.path.relpath(path, world.origin) for path in plan.to_delete)


def there(world: InPlaceWorld) -> list[str]:
    """All that lies where the backup was made."""
    return sorted(str(path.relative_to(world.origin)) for path in world.origin.rglob("*"))
