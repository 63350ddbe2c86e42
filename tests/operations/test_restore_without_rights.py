"""Restores of a user who is not root: what others own only leads on, and what is closed is ours all the same."""

from __future__ import annotations

import codecs
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from backstay.operations.restore import postgres_dump  # noqa: F401 - while it can be read
from backstay.operations.restore.in_place import InPlaceResult, restore_in_place
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.operations.restore.run import RestoreOptions, RestoreResult, plan_restore, run_restore
from tests.operations.in_place_world import OVERWRITE, InPlaceWorld, seen, settle, write

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
