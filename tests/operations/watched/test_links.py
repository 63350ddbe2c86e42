"""Watched files of which the kernel tells under another name, or not at all: the snapshot after it has the change."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstay.sources.kernel import call
from tests.operations.watched.world import World

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("one", "other"):
        (root / name / "below").mkdir(parents=True)
        (root / name / "below" / "file").write_text("as it was")
    return root


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    with World([root]) as world:
        world.snapshot()
        yield world


def until_quiet(world: World) -> int:
    """All snapshots that the watch has a reason for: how many."""
    for number in range(5):
        if world.journal.stirred() is None:
            return number
        world.snapshot()
    pytest.fail("it finds a reason each time")


@pytest.mark.parametrize("is_moved", [False, True], ids=["made there", "moved there"])
def test_a_link_that_came_with_a_new_directory_is_seen_where_the_file_has_its_other_name(
    world: World, root: Path, *, is_moved: bool
) -> None:
    new = root / "other/new"
    made = root.parent / "new" if is_moved else new
    made.mkdir()
    os.link(root / "one/below/file", made / "link")
    if is_moved:
        made.rename(new)
    assert until_quiet(world) == 2  # the second looks for the other name
    assert world.shown() == world.fresh()
    (new / "link").write_text("through one name")
    assert until_quiet(world) == 1
    assert world.shown() == world.fresh()


def test_a_link_that_was_moved_to_other_links_is_seen_where_the_file_has_its_other_name(
    world: World, root: Path
) -> None:
    os.link(root / "other/below/file", root / "other/below/again")
    until_quiet(world)
    os.link(root / "one/below/file", root.parent / "link")
    (root.parent / "link").rename(root / "other/below/link")
    assert until_quiet(world) == 1
    assert world.shown() == world.fresh()


def test_what_is_written_to_a_file_that_lost_the_name_it_was_opened_by_is_seen(world: World, root: Path) -> None:
    place = root / "one/below"
    with (place / "first").open("wb", buffering=0) as file:
        file.write(b"begun")
        os.link(place / "first", place / "second")
        (place / "first").unlink()
        until_quiet(world)
        file.write(b", and more")
        assert until_quiet(world) == 1
        assert world.shown() == world.fresh()


def test_what_is_written_to_a_file_that_got_its_name_later_is_seen(world: World, root: Path) -> None:
    place = root / "one/below"
    try:
        fd = os.open(place, os.O_TMPFILE | os.O_WRONLY)
    except OSError:
        pytest.skip("not supported here")
    try:
        call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, bytes(place / "named"), AT_SYMLINK_FOLLOW)
        until_quiet(world)
        os.write(fd, b"written afterwards")
        assert until_quiet(world) == 1
        assert world.shown() == world.fresh()
    finally:
        os.close(fd)


@contextmanager
def mounted(place: Path, *how: str | Path) -> Iterator[None]:
    if subprocess.run(["mount", *how, place], check=False).returncode != 0:
        pytest.skip("cannot mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_file_that_is_mounted_onto_another_is_looked_at_each_time(root: Path, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").write_text("as it was")
    with mounted(root / "one/below/file", "--bind", outside), World([root]) as world:
        world.snapshot()
        assert not world.journal.tells_all
        (root / "one/below/file").write_text("through the mount")
        (root / "other/new").touch()
        assert until_quiet(world) == 1
        assert world.shown() == world.fresh()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_an_excluded_file_may_be_mounted(root: Path, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").write_text("as it was")
    with mounted(root / "one/below/file", "--bind", outside), World([root], patterns=(b"below/file",)) as world:
        world.snapshot()
        assert world.journal.tells_all


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_what_happens_to_the_root_of_another_file_system_is_in_the_next_snapshot(root: Path) -> None:
    place = root / "one/below"
    with mounted(place, "-t", "tmpfs", "none"), World([root], one_file_system=True) as world:
        world.snapshot()
        place.chmod(0o700)
        (root / "other/new").touch()
        assert until_quiet(world) == 1
        assert world.shown() == world.fresh()
