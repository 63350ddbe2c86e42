"""A restore never takes away the repository that it reads, nor what leads to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.tiers.moving import set_tier
from backstay.repository.repository import Environment, Repository
from backstay.sources.files_target import FilesTarget
from backstay.storage.local import LocalStorage
from backstay.storage.mirrored import Mirrored
from tests.crash.small_world import SECRET
from tests.operations.in_place_world import InPlaceWorld, write
from tests.operations.restore_ways import Way, direct, planned, staged, there

ways = pytest.mark.parametrize("way", [direct, staged])


def open_here(world: InPlaceWorld, *places: str) -> None:
    """A repository in what is backed up: one copy in each place."""
    stores = [LocalStorage(world.origin / place) for place in places]
    store = stores[0] if len(stores) == 1 else Mirrored(stores)
    world.repository = Repository.create(store, SECRET, environment=Environment(threads=1))


def move_here(world: InPlaceWorld, place: str) -> None:
    """The repository was elsewhere when the snapshot was made."""
    store = LocalStorage(world.origin / place)
    for info in world.repository.backend.list():
        store.store(info.name, world.repository.backend.retrieve(info.name))
    world.repository = Repository.open(store, SECRET, environment=Environment(threads=1))


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    found = InPlaceWorld(tmp_path)
    write(found.origin / "a", "held")
    return found


@ways
@pytest.mark.parametrize("excluded", [b"/**/repository", b"/**/backup"])
def test_the_repository_is_no_stranger(world: InPlaceWorld, way: Way, excluded: bytes) -> None:
    open_here(world, "backup/repository")
    world.snapshot(excluded)
    held = there(world)
    write(world.origin / "new", "new")
    options = RestoreOptions(in_place=True, delete=True)
    assert planned(world, options) == ["new"]
    way(world, options)
    assert there(world) == held


@ways
def test_neither_are_its_copies_nor_its_cold_tier(world: InPlaceWorld, way: Way) -> None:
    open_here(world, "one", "two/copy")
    world.snapshot(b"/**/one", b"/**/two")
    set_tier(world.repository, str(world.origin / "cold/drawer"), 0)
    world.repository = Repository.open(world.repository.backend, SECRET, environment=Environment(threads=1))
    places = [world.origin / place for place in ("cold/drawer", "one", "two/copy")]
    assert sorted(world.repository.local_places()) == places
    options = RestoreOptions(in_place=True, delete=True)
    assert planned(world, options) == []
    way(world, options)
    assert {"one/packs", "two/copy/packs", "cold/drawer"} <= set(there(world))


@pytest.mark.parametrize("conflict", ["overwrite", "newer", "rename"])
def test_nothing_takes_the_place_of_what_holds_the_repository(world: InPlaceWorld, conflict: Conflict) -> None:
    write(world.origin / "backup", "a file", at=2_000_000_000 * 10**9)
    world.snapshot()
    (world.origin / "backup").unlink()
    (world.origin / "a").write_text("changed")
    move_here(world, "backup/repository")
    held = there(world)
    options = RestoreOptions(in_place=True, conflict=conflict)
    for way in (direct, planned) if conflict == "rename" else (direct, staged, planned):
        with pytest.raises(InvalidRequest, match="cannot replace"):
            way(world, options)
        assert there(world) == held
    assert (world.origin / "a").read_text() == "changed"


@ways
def test_nothing_is_put_into_the_repository(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "backup/repository/packs/file", "not an object")
    world.snapshot()
    shutil.rmtree(world.origin / "backup")
    move_here(world, "backup/repository")
    held = there(world)
    with pytest.raises(InvalidRequest, match="inside the repository"):
        way(world, RestoreOptions(in_place=True, delete=True, conflict="overwrite"))
    assert there(world) == held


@ways
def test_what_was_an_empty_directory_keeps_the_repository_that_is_there_now(world: InPlaceWorld, way: Way) -> None:
    (world.origin / "repository").mkdir()
    world.snapshot()
    move_here(world, "repository")
    held = there(world)
    way(world, RestoreOptions(in_place=True, delete=True))
    assert there(world) == held


@ways
def test_what_opens_the_repository_is_no_stranger(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "config/backstay/one.key", "held")
    world.snapshot()
    for name in ("config/backstay/two.key", "password", "other", "config/new"):
        write(world.origin / name, name)
    write(world.origin / "config/backstay/one.key", "changed")
    spared = (world.origin / "config/backstay", world.origin / "password", world.origin / "not/there")
    options = RestoreOptions(in_place=True, delete=True, conflict="overwrite", spared=spared)
    assert planned(world, options) == ["config/new", "other"]
    way(world, options)
    assert there(world) == [
        *("a", "config", "config/backstay", "config/backstay/one.key", "config/backstay/two.key", "password")
    ]
    assert (world.origin / "config/backstay/one.key").read_text() == "held"


def test_what_came_after_the_plan_is_refused_when_it_would_go(world: InPlaceWorld) -> None:
    open_here(world, "backup/repository")
    held = there(world)
    target = FilesTarget(world.origin, guard=Guarded(world.repository))
    directory = target.open_root(create=False)
    for act in (directory.remove, directory.set_aside):
        with pytest.raises(InvalidRequest, match="cannot replace"):
            act(b"backup")
    assert there(world) == held


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_the_repository_is_known_under_another_path(world: InPlaceWorld) -> None:
    open_here(world, "backup/repository")
    world.snapshot(b"/**/backup")
    other = world.place / "other"
    other.mkdir()
    if subprocess.run(["mount", "--bind", world.origin, other], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        write(other / "new", "new")
        options = RestoreOptions(path=os.fsencode(world.origin), delete=True)
        assert run_restore(world.repository, world.manifest, other, options).deleted == 1
        assert (world.origin / "backup/repository/packs").is_dir()
    finally:
        subprocess.run(["umount", "-l", other], check=True)


@ways
def test_links_that_lead_to_it_are_no_strangers(world: InPlaceWorld, way: Way, tmp_path: Path) -> None:
    """Without them nobody would find it."""
    world.snapshot()
    (tmp_path / "disk/repository").mkdir(parents=True)
    (world.origin / "to").mkdir()
    (world.origin / "to/repository").symlink_to("../further")
    (world.origin / "further").symlink_to(tmp_path / "disk/repository")
    (tmp_path / "secret").write_text("secret")
    (world.origin / "password").symlink_to(tmp_path / "secret")
    (world.origin / "stranger").symlink_to(tmp_path)
    move_here(world, "to/repository")
    options = RestoreOptions(in_place=True, delete=True, spared=(world.origin / "password",))
    assert planned(world, options) == ["stranger"]
    way(world, options)
    assert [name for name in there(world) if "/" not in name] == ["a", "further", "password", "to"]
    assert (world.origin / "to/repository").is_symlink()
