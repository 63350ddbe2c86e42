"""What is interrupted: each operation that changes a repository, on a small one."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

from backstay.operations.backup import checkpoints
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.repository.collection import compaction as compaction_module
from backstay.repository.collection import garbage as garbage_module
from backstay.repository.collection.reserve import set_aside
from backstay.storage.filesystem_seam import Filesystem
from backstay.testing import FaultyFilesystem
from backstay.testing.filesystem import MUTATIONS
from backstay.trust.secrets import Secret
from tests.crash.small_world import Tree, World, collect, content, small_tree

NIGHTLY: Final = bool(os.environ.get("BACKSTAY_NIGHTLY"))
OTHER_SECRET: Final = Secret("keyfile", bytes(32))


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` runs undisturbed, `act` on a file system that fails, `recover` afterwards on a sound one."""

    name: str
    prepare: Callable[[World], object]
    act: Callable[[World, Filesystem], object]
    recover: Callable[[World], object] = id


def changed(step: int) -> Tree:
    """The small tree after some days."""
    fresh = {b"/d%d/f%02d" % (at % 3, at): content(1000 * step + at, 400 * at) for at in range(0, 18, 4)}
    return small_tree() | fresh | {b"/d1/new%d" % step: content(step, 120_000)}


def _create(world: World) -> None:
    world.create().close()


def _backups(world: World, count: int) -> None:
    _create(world)
    for step in range(count):
        with world.open() as repository:
            world.backup(repository, changed(step))


def _backup(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        world.backup(repository, changed(20))


def _drop_two(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        for ulid in sorted(world.promised)[:2]:
            world.drop(repository, ulid)


def _littered(world: World) -> None:
    """Dropped snapshots, packs with little alive, packs of nobody, a dead writer, many segments."""
    _backups(world, 4)
    with world.open() as repository:
        for ulid in sorted(world.promised)[:3]:
            world.drop(repository, ulid)
        assert set_aside(repository)
        session = repository.begin_session()
        assert session.id
        repository.backend.store("packs/00/" + "00" * 32, b"left by a writer that died")


def _collect(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        collect(repository)


def _rotate(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        repository.keyring.begin_epoch(world.clock)
        world.backup(repository, changed(21))


def _add_slot(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        repository.slots.add(OTHER_SECRET, repository.header_digest, note="other", created="2026-01-01")
        world.opens_too.add(OTHER_SECRET)


def _with_slot(world: World) -> None:
    _backups(world, 1)
    _add_slot(world, Filesystem())
    world.opens_too.clear()
    with world.open() as repository:
        world.backup(repository, small_tree())


def _remove_slot(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        slot = next(found for found in repository.slots.list() if found.note == "other")
        repository.slots.remove(slot.id, world.clock)
        world.opens_no_more.add(OTHER_SECRET)


def _replace_compromised(world: World, filesystem: Filesystem) -> None:
    with world.open(filesystem) as repository:
        repository.keyring.mark_compromised(1, world.clock)
        world.backup(repository, changed(22))
        collect(repository)


def _without_index(world: World) -> None:
    _backups(world, 2)
    for path in (world.directory / "index").iterdir():
        path.unlink()


def _repair_index(world: World, filesystem: Filesystem | None = None) -> None:
    with world.open(filesystem) as repository:
        repair_index(repository)


def _with_damaged_tables(world: World) -> None:
    _backups(world, 2)
    for path in (world.directory / "packs").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9] + b"123456789")


def _repair_packs(world: World, filesystem: Filesystem | None = None) -> None:
    with world.open(filesystem) as repository:
        repair_packs(repository)


def _with_lost_snapshots(world: World) -> None:
    _backups(world, 3)
    for ulid in sorted(world.promised)[:2]:
        path = world.directory / "snapshots" / ulid
        path.unlink()
        world.dropped.add(ulid)


def _repair_snapshots(world: World, filesystem: Filesystem | None = None) -> None:
    with world.open(filesystem) as repository:
        repair_snapshots(repository)


SCENARIOS: Final = {
    found.name: found
    for found in (
        Scenario("create", id, lambda world, filesystem: world.create(filesystem).close()),
        Scenario("first-backup", _create, _backup),
        Scenario("next-backup", lambda world: _backups(world, 1), _backup),
        Scenario("drop", lambda world: _backups(world, 3), _drop_two),
        Scenario("collect", _littered, _collect),
        Scenario("rotate-key", lambda world: _backups(world, 1), _rotate),
        Scenario("add-key", lambda world: _backups(world, 1), _add_slot),
        Scenario("remove-key", _with_slot, _remove_slot),
        Scenario("replace-compromised", lambda world: _backups(world, 2), _replace_compromised),
        Scenario("repair-index", _without_index, _repair_index, _repair_index),
        Scenario("repair-packs", _with_damaged_tables, _repair_packs, _repair_packs),
        Scenario("repair-snapshots", _with_lost_snapshots, _repair_snapshots, _repair_snapshots),
    )
}


@contextmanager
def small_constants() -> Iterator[None]:
    """Checkpoints every few files, and compaction as soon as there is anything to compact."""
    with (
        patch.object(checkpoints, "MOST_FILES", 8),
        patch.object(compaction_module, "MANY_SEGMENTS", 2),
        patch.object(garbage_module, "MANY_SMALL", 3),
        patch.object(compaction_module, "SEGMENT_TARGET", 2000),
    ):
        yield


def prepared(scenario: Scenario, place: Path) -> World:
    """The world before the operation."""
    world = World(place / "base")
    world.directory.mkdir()
    scenario.prepare(world)
    return world


def count_calls(scenario: Scenario, base: World, place: Path) -> int:
    """How many calls of an undisturbed run change the file system."""
    filesystem = FaultyFilesystem()
    scenario.act(base.copy(place / "counted"), filesystem)
    return sum(1 for operation, _ in filesystem.calls if operation in MUTATIONS)


def sample(total: int, limit: int, seed: str) -> list[int]:
    """All points from 1 to `total`, or `limit` of them, the same ones each time, the first and last among them."""
    if NIGHTLY or total <= limit:
        return list(range(1, total + 1))
    chosen = random.Random(seed).sample(range(2, total), limit - 2)
    return sorted([1, *chosen, total])
