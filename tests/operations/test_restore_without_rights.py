"""Restores of a user who is not root: what others own only leads on, and what is closed is ours all the same."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from backstay.operations.restore import postgres_dump  # noqa: F401 - while it can be read
from backstay.operations.restore.comparing import compare_with_target
from backstay.operations.restore.in_place import InPlaceResult, restore_in_place
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions, RestorePlan, RestoreResult, plan_restore, run_restore
from backstay.sources.filters import Selection
from tests.operations.in_place_world import OVERWRITE, InPlaceWorld, seen, settle, write
from tests.sources.files_target.nodes import set_or_skip

NOBODY: Final = 65534
codecs.lookup("ascii")  # the same
Way: TypeAlias = Callable[..., InPlaceResult | RestoreResult]
IN_PLACE: Final = replace(OVERWRITE, delete=False, in_place=True)


@contextmanager
def without_rights() -> Iterator[None]:
    """What this process does is done by nobody."""
    if os.geteuid() != 0:
        yield
        return
    with ExitStack() as back:
        groups = os.getgroups()
        os.setgroups([])
        back.callback(os.setgroups, groups)
        os.setegid(NOBODY)
        back.callback(os.setegid, 0)
        os.seteuid(NOBODY)
        back.callback(os.seteuid, 0)
        yield


@contextmanager
def with_rights() -> Iterator[None]:
    """For once, within that."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(NOBODY)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of nobody's, who runs the test, in one that may be entered but not read."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        home = Path(place) / "nobody"
        home.mkdir()
        Path(place).chmod(0o711)
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        with without_rights():
            yield home
        subprocess.run(["chmod", "-R", "u+rwx", home], check=True)


@pytest.fixture
def world(home: Path) -> InPlaceWorld:
    world = InPlaceWorld(home)
    write(world.origin / "same", "same")
    write(world.origin / "differs", "as it was")
    settle(home)
    return world


def direct(world: InPlaceWorld, options: RestoreOptions = IN_PLACE) -> RestoreResult:
    return run_restore(world.repository, world.manifest, Path("/"), options)


def staged(world: InPlaceWorld, options: RestoreOptions = IN_PLACE) -> InPlaceResult:
    return restore_in_place(world.repository, world.manifest, options)


WAYS: Final = pytest.mark.parametrize("way", [staged, direct])


@WAYS
def test_the_original_place_need_be_writable_only_where_something_is_written(world: InPlaceWorld, way: Way) -> None:
    world.snapshot()
    before = seen(world.origin)
    (world.origin / "differs").write_text("changed")
    assert plan_restore(world.repository, world.manifest, Path("/"), IN_PLACE).conflict_count == 1
    assert way(world).problems == ()
    assert seen(world.origin) == before


def test_a_part_comes_back_from_below_a_directory_that_cannot_be_read(world: InPlaceWorld) -> None:
    world.snapshot()
    (world.origin / "differs").write_text("changed")
    home = os.fsencode(world.place)
    for path in (home, home + b"/origin"):
        assert staged(world, replace(IN_PLACE, path=path)).error is None
        assert (world.origin / "differs").read_text() == "as it was"


def test_the_old_state_comes_back_without_rights(world: InPlaceWorld) -> None:
    world.snapshot()
    (world.origin / "differs").write_text("changed")
    before = seen(world.origin)
    (kept,) = staged(world, replace(IN_PLACE, keep_old=True)).kept
    assert roll_back_in_place(kept).did == "undone"
    assert seen(world.origin) == before


# -- what is closed to its owner


@pytest.fixture
def closed(world: InPlaceWorld) -> InPlaceWorld:
    """A snapshot of files and directories that their owner has closed to himself: root has made it."""
    origin = world.origin
    for name in ("closed/file", "unreadable/file", "no search/deep/file", "file", "unreadable file", "noted"):
        write(origin / name, name)
    set_or_skip(origin / "noted", "user.note", b"1")
    for name, mode in MODES.items():
        (origin / name).chmod(mode)
    with with_rights():
        settle(world.origin)
        world.snapshot()
    return world


MODES: Final = {
    "closed": 0o000,
    "unreadable": 0o300,
    "no search": 0o600,
    "file": 0o000,
    "unreadable file": 0o200,
    "noted": 0o200,
}


def modes(tree: Path) -> dict[str, int]:
    return {name: (tree / name).stat().st_mode & 0o7777 for name in MODES}


def to(world: InPlaceWorld, target: Path, options: RestoreOptions) -> RestoreResult:
    options = replace(options, path=os.fsencode(world.origin), in_place=False)
    return run_restore(world.repository, world.manifest, target, options)


def test_what_is_closed_is_verified_and_found_again(closed: InPlaceWorld) -> None:
    target = closed.place / "out"
    first = to(closed, target, RestoreOptions(verify=True))
    assert (first.errors, first.problems, first.verified) == ((), (), 8)
    with with_rights():
        before = seen(target)
    again = to(closed, target, RestoreOptions(verify=True))
    assert (again.errors, again.problems, again.unchanged) == ((), (), 8)
    with with_rights():
        assert seen(target) == before


@WAYS
def test_what_is_closed_comes_back_to_its_place(closed: InPlaceWorld, way: Way) -> None:
    with with_rights():
        before = seen(closed.origin)
        for name in ("closed/file", "unreadable/file", "no search/deep/file", "unreadable file"):
            (closed.origin / name).write_text("changed")
        (closed.origin / "file").unlink()
    result = way(closed)
    assert (result.problems, getattr(result, "error", None)) == ((), None)
    with with_rights():
        assert seen(closed.origin) == before


def test_looking_changes_no_mode(closed: InPlaceWorld) -> None:
    found = compare_with_target(closed.repository, closed.manifest, Path("/"), IN_PLACE)
    assert found.ok
    assert plan_restore(closed.repository, closed.manifest, Path("/"), IN_PLACE).unchanged == 8
    assert modes(closed.origin) == MODES


def test_what_others_have_closed_counts_as_different(closed: InPlaceWorld) -> None:
    target = closed.place / "out"
    to(closed, target, RestoreOptions())
    with with_rights():
        os.chown(target / "file", 0, 0)
        os.chown(target / "closed", 0, 0)
    assert plan_restore_to(closed, target).conflict_count == 2
    plan = plan_restore_to(closed, target, "overwrite")
    assert (plan.conflicts, [item.path for item in plan.errors]) == (
        [f"{closed.origin}/file"],
        [f"{closed.origin}/closed"],
    )
    result = to(closed, target, RestoreOptions(conflict="overwrite", verify=True))
    assert plan.errors[0] in result.errors
    assert {item.path for item in result.errors} == {f"{closed.origin}/closed", f"{closed.origin}/closed/file"}
    assert (target / "file").stat().st_uid == os.geteuid()


def plan_restore_to(world: InPlaceWorld, target: Path, conflict: Conflict = "fail") -> RestorePlan:
    options = RestoreOptions(path=os.fsencode(world.origin), conflict=conflict)
    return plan_restore(world.repository, world.manifest, target, options)


@WAYS
def test_a_directory_on_the_way_keeps_its_mode(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "locked/file", "as it was")
    settle(world.origin)
    world.snapshot()
    write(world.origin / "locked/file", "changed")
    (world.origin / "locked").chmod(0o500)
    chosen = Selection([os.fsencode(world.origin / "locked/file")], [])
    assert way(world, replace(IN_PLACE, chooser=chosen)).problems == ()
    assert (world.origin / "locked/file").read_text() == "as it was"
    assert (world.origin / "locked").stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize("mode", [0o500, 0o600])
def test_a_directory_keeps_its_mode_when_only_attributes_in_it_change(world: InPlaceWorld, mode: int) -> None:
    write(world.origin / "locked/inner/file", "same")
    settle(world.origin)
    (world.origin / "locked/inner").chmod(mode)
    (world.origin / "locked").chmod(mode)
    with with_rights():
        world.snapshot()
        before = seen(world.origin)
        (world.origin / "locked/inner/file").chmod(0o600)
    (kept,) = staged(world, replace(IN_PLACE, keep_old=True)).kept
    with with_rights():
        assert seen(world.origin) == before
    roll_back_in_place(kept)
    with with_rights():
        assert (world.origin / "locked/inner/file").stat().st_mode & 0o777 == 0o600
        assert [(world.origin / name).stat().st_mode & 0o777 for name in ("locked", "locked/inner")] == [mode, mode]


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_what_is_closed_goes_with_the_restore_unless_it_was_written_to(world: InPlaceWorld, mode: int) -> None:
    closed = [world.origin / "closed/inner", world.origin / "closed"]
    write(closed[0] / "file", "as it was")
    settle(world.origin)
    for directory in closed:
        directory.chmod(mode)
    with with_rights():
        world.snapshot()
    for written in (False, True):
        with with_rights():
            shutil.rmtree(world.origin / "closed", ignore_errors=True)
        (kept,) = staged(world, replace(IN_PLACE, keep_old=True)).kept
        with with_rights():
            assert [directory.stat().st_mode & 0o777 for directory in closed] == [mode, mode]
            if written:
                (closed[0] / "file").write_text("work")
        assert [problem.path for problem in roll_back_in_place(kept).problems] == [os.fsencode(closed[1])] * written
        with with_rights():
            assert not closed[1].exists()
            assert [path.read_text() for path in world.origin.glob("closed.backstay-old/inner/*")] == ["work"] * written


def test_what_a_directory_on_the_way_does_not_tell_is_not_needed(world: InPlaceWorld) -> None:
    with with_rights():
        set_or_skip(world.place.parent, "user.note", b"for those who may read")
        world.snapshot()
    (world.origin / "differs").write_text("changed")
    assert staged(world).replaced == 1
