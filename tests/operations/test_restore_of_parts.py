"""Restores of chosen items: directories of which nothing is chosen are neither needed nor in the way."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.errors import RestoreConflict
from backstay.operations.restore.in_place import InPlaceResult, restore_in_place
from backstay.operations.restore.run import RestoreOptions, RestoreResult, plan_restore, run_restore
from backstay.sources.filters import Selection
from tests.operations.in_place_world import InPlaceWorld, write
from tests.operations.restore_ways import Way, direct, staged

KEEP_ONLY = RestoreOptions(chooser=Selection((b"keep.txt",)), in_place=True)


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    found = InPlaceWorld(tmp_path)
    write(found.origin / "keep.txt", "kept", mode=0o600)
    write(found.origin / "d/inner/other.log", "not chosen")
    found.snapshot()
    return found


def test_attributes_come_back_where_nothing_else_is_chosen(world: InPlaceWorld) -> None:
    shutil.rmtree(world.origin / "d")
    (world.origin / "keep.txt").chmod(0o644)
    result = restore_in_place(world.repository, world.manifest, KEEP_ONLY)
    assert (result.dressed, result.added, result.problems) == (1, 0, ())
    assert (world.origin / "keep.txt").stat().st_mode & 0o777 == 0o600
    assert not (world.origin / "d").exists()


@pytest.mark.parametrize("way", [direct, staged])
def test_directories_of_which_nothing_is_chosen_are_not_made(world: InPlaceWorld, way: Way) -> None:
    shutil.rmtree(world.origin / "d")
    (world.origin / "keep.txt").unlink()
    result = way(world, KEEP_ONLY)
    assert isinstance(result, RestoreResult | InPlaceResult)
    assert result.problems == ()
    assert [path.name for path in world.origin.iterdir()] == ["keep.txt"]


@pytest.fixture
def in_the_way(world: InPlaceWorld) -> Path:
    """A file that has the place of a directory."""
    shutil.rmtree(world.origin)
    write(world.origin / "d", "a file by now")
    return world.origin / "d"


@pytest.mark.parametrize("way", [direct, staged])
def test_what_is_in_the_place_of_a_directory_of_which_nothing_is_chosen_is_no_conflict(
    world: InPlaceWorld, in_the_way: Path, way: Way
) -> None:
    assert plan_restore(world.repository, world.manifest, Path("/"), KEEP_ONLY).conflicts == []
    way(world, KEEP_ONLY)
    assert (world.origin / "keep.txt").read_text() == "kept"
    assert in_the_way.read_text() == "a file by now"


def test_a_restore_elsewhere_leaves_it_alone_as_well(world: InPlaceWorld, in_the_way: Path) -> None:
    options = replace(KEEP_ONLY, path=os.fsencode(world.origin), in_place=False)
    assert run_restore(world.repository, world.manifest, world.origin, options).files == 1
    assert in_the_way.read_text() == "a file by now"


@pytest.mark.parametrize("way", [direct, staged])
@pytest.mark.parametrize("chosen", [b"other.log", b"inner"])
def test_it_is_a_conflict_once_something_below_it_is_chosen(
    world: InPlaceWorld, in_the_way: Path, way: Way, chosen: bytes
) -> None:
    options = replace(KEEP_ONLY, chooser=Selection((chosen,)))
    with pytest.raises(RestoreConflict) as failed:
        way(world, options)
    assert failed.value.paths == (str(in_the_way),)
    way(world, replace(options, conflict="overwrite"))
    assert (in_the_way / "inner/other.log").read_text() == "not chosen"
    assert not (world.origin / "keep.txt").exists()
