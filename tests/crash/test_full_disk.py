"""A disk that runs full at several places: typed errors, old snapshots, and room again afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from backstay.errors import InsufficientSpace
from backstay.repository.collection.reserve import set_aside, with_reserve
from backstay.repository.format import RESERVE
from backstay.storage.filesystem_seam import Filesystem
from backstay.testing import FaultyFilesystem
from tests.crash.small_world import Tree, Unsynced, World, collect, content

pytestmark = pytest.mark.crash
DISK: Final = 16 << 20
GC_NEEDS: Final = 64 << 10  # bytes: a collection writes its records and an index segment before it frees anything


@dataclass(slots=True)
class Disk:
    """A small disk, or a file system that behaves like one; `leave` says how many bytes are free from then on."""

    place: Path
    is_real: bool
    limit: int | None = field(default=None)

    def leave(self, free: int) -> None:
        if not self.is_real:
            self.limit = free
            return
        filler = self.place / "filler"
        filler.unlink(missing_ok=True)
        rest = os.statvfs(self.place).f_bavail * os.statvfs(self.place).f_frsize
        with filler.open("wb") as file:
            file.write(bytes(max(0, rest - free)))

    def clear(self) -> None:
        self.limit = None
        (self.place / "filler").unlink(missing_ok=True)

    def filesystem(self) -> Filesystem:
        return FaultyFilesystem(capacity=self.limit, inner=Unsynced())


@pytest.fixture
def disk(place: Path) -> Iterator[Disk]:
    mounted = place / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "backstay-test", str(mounted)]
    is_real = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield Disk(mounted, is_real)
    finally:
        if is_real:
            subprocess.run(["umount", str(mounted)], check=True)


def tree(seed: int, size: int) -> Tree:
    return {b"/%d" % at: content(seed + at, size // 8) for at in range(8)}


@pytest.fixture
def world(disk: Disk) -> World:
    world = World(disk.place / "repository")
    world.create().close()
    for seed in (0, 100):
        with world.open() as repository:
            world.backup(repository, tree(seed, 1 << 20))
    return world


def back_up(world: World, disk: Disk) -> None:
    with world.open(disk.filesystem()) as repository:
        world.backup(repository, tree(200, 3 << 20))


@pytest.mark.parametrize("free", [0, 4096, 20_000, 70_000, 300_000, 1 << 20, 2 << 20, 3 << 20])
def test_a_full_disk_is_told_and_costs_nothing(world: World, disk: Disk, free: int) -> None:
    disk.leave(free)
    with pytest.raises(InsufficientSpace) as caught:
        back_up(world, disk)
    assert caught.value.exit_status == 14
    with world.open() as repository:
        world.assert_kept(repository)
    disk.clear()
    back_up(world, disk)
    world.assert_sound()


def dropped(world: World) -> None:
    with world.open() as repository:
        world.drop(repository, min(world.promised))


def test_a_collection_needs_little_room(world: World, disk: Disk) -> None:
    dropped(world)
    disk.leave(GC_NEEDS)
    with world.open(disk.filesystem()) as repository:
        assert collect(repository).freed_bytes >= 1 << 20
    if disk.is_real:  # the room that it made is there
        with world.open(disk.filesystem()) as repository:
            world.backup(repository, tree(300, 1 << 19))
    disk.clear()
    world.assert_sound()


def test_a_disk_without_room_is_freed_in_the_room_of_the_reserve(world: World, disk: Disk) -> None:
    if not disk.is_real:
        pytest.skip("what is deleted makes room on a real disk only")
    with world.open() as repository:
        assert set_aside(repository)
    disk.leave(0)
    with world.open(disk.filesystem()) as repository:
        with_reserve(repository, lambda: world.drop(repository, min(world.promised)))
        assert not repository.backend.exists(RESERVE)
    with world.open(disk.filesystem()) as repository:
        assert collect(repository).freed_bytes >= 1 << 20
        assert set_aside(repository)
    disk.clear()
    world.assert_sound()


def test_a_collection_gives_the_reserve_up_and_sets_it_aside_again(world: World, disk: Disk) -> None:
    if not disk.is_real:
        pytest.skip("what is deleted makes room on a real disk only")
    dropped(world)
    with world.open() as repository:
        assert set_aside(repository)
    disk.leave(0)
    with world.open(disk.filesystem()) as repository:
        assert collect(repository).freed_bytes >= 1 << 20
        assert repository.backend.exists(RESERVE)
    disk.clear()
    world.assert_sound()


@pytest.mark.parametrize("free", [0, 4096, 8192, 16384])
def test_a_collection_without_room_says_so_and_loses_nothing(world: World, disk: Disk, free: int) -> None:
    dropped(world)
    disk.leave(free)
    try:
        with world.open(disk.filesystem()) as repository:
            collect(repository)
    except InsufficientSpace:
        with world.open() as repository:
            world.assert_kept(repository)
    disk.leave(GC_NEEDS)
    with world.open(disk.filesystem()) as repository:
        collect(repository)
    disk.clear()
    world.assert_sound()


def test_what_an_interrupted_store_left_is_removed(world: World, disk: Disk) -> None:
    disk.leave(300_000)
    with pytest.raises(InsufficientSpace):
        back_up(world, disk)
    left = [path for path in world.directory.rglob(".tmp-*") if path.is_file()]
    assert not left
    disk.clear()
