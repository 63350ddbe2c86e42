"""A file that is equal already, and has names besides those of the snapshot, shares no new attributes with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from backstay.errors import RestoreFailed
from backstay.operations.restore.in_place import InPlaceResult
from backstay.operations.restore.known_names import STAYS_SHARED
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.sources.files_target import FilesTarget
from backstay.sources.switch_calls import SwitchCalls
from tests.operations.in_place_world import InPlaceWorld, seen, settle, write
from tests.sources.files_target.nodes import file_node

Way: TypeAlias = Callable[[InPlaceWorld, Path, Conflict], InPlaceResult | RestoreResult]


def staged(world: InPlaceWorld, target: Path, conflict: Conflict) -> InPlaceResult:
    return world.restore(target, RestoreOptions(conflict=conflict))


def direct(world: InPlaceWorld, target: Path, conflict: Conflict) -> RestoreResult:
    options = RestoreOptions(conflict=conflict, path=os.fsencode(world.origin))
    return run_restore(world.repository, world.manifest, target, options)


WAYS: Final = pytest.mark.parametrize("way", [staged, direct])


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o7777)


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    world = InPlaceWorld(tmp_path)
    write(world.origin / "alone", "equal", mode=0o644)
    write(world.origin / "one", "two names", mode=0o644)
    (world.origin / "two").hardlink_to(world.origin / "one")
    settle(world.origin)
    world.snapshot()
    return world


@pytest.fixture
def tree(world: InPlaceWorld) -> Path:
    """What the snapshot holds, with other modes; each file has one more name outside."""
    tree = world.place / "tree/data"
    write(tree / "alone", "equal", mode=0o600)
    write(tree / "one", "two names", mode=0o600)
    (tree / "two").hardlink_to(tree / "one")
    (world.place / "secret").hardlink_to(tree / "alone")
    (world.place / "secret of two").hardlink_to(tree / "one")
    settle(tree)
    return tree


@WAYS
@pytest.mark.parametrize("conflict", ["overwrite", "newer"])
def test_a_file_outside_that_is_the_same_one_stays_as_it_is(
    world: InPlaceWorld, tree: Path, way: Way, conflict: Conflict
) -> None:
    outside = [world.place / "secret", world.place / "secret of two"]
    before = [path.stat().st_mode for path in outside]
    assert way(world, tree, conflict).problems == ()
    assert [path.stat().st_mode for path in outside] == before
    assert seen(tree) == seen(world.origin)


@WAYS
def test_where_nothing_may_be_replaced_it_is_told(world: InPlaceWorld, tree: Path, way: Way) -> None:
    before = seen(tree)
    problems = way(world, tree, "fail").problems
    assert sorted(problem.path.rpartition(b"/")[2] for problem in problems) == [b"alone", b"one"]
    assert {problem.message for problem in problems} == {STAYS_SHARED}
    assert seen(tree) == before


@WAYS
def test_what_may_stay_stays_without_a_word(world: InPlaceWorld, tree: Path, way: Way) -> None:
    before = {name: what for name, what in seen(tree).items() if name != "."}
    assert way(world, tree, "skip").problems == ()
    assert {name: what for name, what in seen(tree).items() if name != "."} == before


@WAYS
def test_what_needs_no_change_may_have_other_names(world: InPlaceWorld, tree: Path, way: Way) -> None:
    for path in (tree / "alone", tree / "one"):
        path.chmod(0o644)
    before = tree.joinpath("alone").stat().st_ino, tree.joinpath("one").stat().st_ino
    assert way(world, tree, "overwrite").problems == ()
    assert (tree.joinpath("alone").stat().st_ino, tree.joinpath("two").stat().st_ino) == before


@WAYS
def test_names_that_are_all_of_the_snapshot_keep_their_file(world: InPlaceWorld, tree: Path, way: Way) -> None:
    (world.place / "secret of two").unlink()
    before = (tree / "one").stat().st_ino
    assert way(world, tree, "fail").problems != ()  # the other one
    assert ((tree / "two").stat().st_ino, mode(tree / "one")) == (before, "0o644")


@WAYS
def test_files_of_the_snapshot_that_have_become_one_are_two_again(tmp_path: Path, way: Way) -> None:
    world = InPlaceWorld(tmp_path)
    write(world.origin / "a", "equal", mode=0o600)
    write(world.origin / "b", "equal", mode=0o666)
    settle(world.origin)
    world.snapshot()
    tree = tmp_path / "tree/data"
    write(tree / "a", "equal", mode=0o600)
    (tree / "b").hardlink_to(tree / "a")
    assert way(world, tree, "overwrite").problems == ()
    assert (mode(tree / "a"), mode(tree / "b")) == ("0o600", "0o666")


@WAYS
@pytest.mark.parametrize("conflict", ["skip", "newer", "fail"])
def test_a_name_that_lacks_does_not_get_the_rights_of_a_file_that_stays(
    world: InPlaceWorld, tree: Path, way: Way, conflict: Conflict
) -> None:
    write(tree / "one", "two names", mode=0o666, at=5)
    (tree / "two").unlink()
    way(world, tree, conflict)
    assert ((tree / "two").read_text(), mode(tree / "two")) == ("two names", "0o644")
    assert mode(world.place / "secret of two") == "0o666"


@pytest.mark.parametrize("conflict", ["skip", "newer"])
def test_a_name_that_lacks_joins_a_file_that_stays_and_looks_right(
    world: InPlaceWorld, tree: Path, conflict: Conflict
) -> None:
    (tree / "one").chmod(0o644)
    (tree / "two").unlink()
    direct(world, tree, conflict)
    assert (tree / "two").samefile(tree / "one")


def test_another_file_that_takes_the_name_keeps_its_attributes(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    write(tree / "alone", "equal", mode=0o600)
    write(tree / "other", "another file", mode=0o600)

    class Meddling(SwitchCalls):
        def step(self, what: str) -> None:
            if what == "dress" and (tree / "other").exists():
                (tree / "other").rename(tree / "alone")

    result = world.restore(tree, RestoreOptions(conflict="overwrite"), calls=Meddling())
    assert [(problem.path, "replaced it" in problem.message) for problem in result.problems] == [
        (os.fsencode(tree / "alone"), True)
    ]
    assert ((tree / "alone").read_text(), mode(tree / "alone")) == ("another file", "0o600")


def test_attributes_are_those_of_the_file_that_was_compared(tmp_path: Path) -> None:
    write(tmp_path / "meant", "equal")
    write(tmp_path / "other", "equal", mode=0o600)
    with pytest.raises(RestoreFailed, match="set attributes of"):
        FilesTarget(tmp_path).open_root(create=False).apply(b"other", file_node(b"equal"), (tmp_path / "meant").stat())
    assert mode(tmp_path / "other") == "0o600"
