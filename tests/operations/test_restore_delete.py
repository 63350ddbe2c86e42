"""What --delete takes away: only what was asked for and the snapshot does not hold, in every way of restoring."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, RestoreFailed
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.operations.restore.run import RestoreOptions, plan_restore
from backstay.operations.snapshots.walk import EVERYTHING, Chooser
from backstay.sources.filesystem import OpenDirectory
from backstay.sources.filters import Selection
from backstay.sources.source import Stat
from backstay.sources.target_directory import TargetDirectory
from tests.operations.in_place_world import InPlaceWorld, seen, settle, write
from tests.operations.restore_ways import Way, direct, planned, staged, there


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


CHOICES = {
    "what is included": (Selection([b"*.txt"]), ["dir/new.txt", "dir/strange/x.txt", "new.txt", "strange/x.txt"]),
    "what is not excluded": (
        Selection([], [b"*.jpg"]),
        ["dir/new.txt", "dir/strange", "empty", "new.txt", "strange/in/x.doc", "strange/x.txt"],
    ),
    "a directory": (Selection([b"strange", b"a.txt"]), ["dir/strange", "strange"]),
    "a directory without some": (
        Selection([b"strange", b"a.txt"], [b"*.jpg"]),
        ["dir/strange", "strange/in/x.doc", "strange/x.txt"],
    ),
}


@ways
@pytest.mark.parametrize("choice", CHOICES)
def test_only_what_is_chosen_is_deleted(world: InPlaceWorld, way: Way, choice: str) -> None:
    chooser, gone = CHOICES[choice]
    for name in ("a.txt", "c.jpg", "photos/p.jpg", "dir/held.jpg"):
        write(world.origin / name, name)
    world.snapshot()
    held = there(world)
    for name in ("new.txt", "new.jpg", "dir/new.txt", "dir/strange/x.txt", "strange/in/x.doc", "strange/in/x.jpg"):
        write(world.origin / name, name)
    write(world.origin / "strange/x.txt", "x")
    (world.origin / "empty").mkdir()
    before = there(world)
    options = RestoreOptions(chooser=chooser, in_place=True, delete=True)
    assert planned(world, options) == gone
    way(world, options)
    after = there(world)
    assert set(held) <= set(after)
    assert set(before) - set(after) == {
        name for name in before if any(f"{name}/".startswith(f"{one}/") for one in gone)
    }


@ways
def test_what_the_snapshot_holds_as_something_else_is_not_deleted(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "kind/file", "in a directory")
    write(world.origin / "other", "other")
    world.snapshot()
    shutil.rmtree(world.origin / "kind")
    write(world.origin / "kind", "a file now")
    options = RestoreOptions(chooser=Selection([], [b"kind/"]), in_place=True, delete=True)
    assert planned(world, options) == []
    way(world, options)
    assert there(world) == ["kind", "other"]


@ways
def test_what_a_directory_of_which_nothing_is_restored_holds_beside_is_deleted(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "photos/p.jpg", "held")
    write(world.origin / "a.txt", "held")
    world.snapshot()
    write(world.origin / "photos/new.txt", "new")
    options = RestoreOptions(chooser=Selection([b"*.txt"]), in_place=True, delete=True)
    assert planned(world, options) == ["photos/new.txt"]
    way(world, options)
    assert there(world) == ["a.txt", "photos", "photos/p.jpg"]


@ways
def test_the_state_that_an_earlier_restore_keeps_is_not_deleted(world: InPlaceWorld, way: Way) -> None:
    write(world.origin / "in/a", "held")
    world.snapshot()
    write(world.origin / "in/a", "changed")
    inside = RestoreOptions(path=os.fsencode(world.origin / "in"), conflict="overwrite", keep_old=True)
    restored = restore_in_place(world.repository, world.manifest, inside)
    (kept,) = restored.kept
    assert kept.parent == world.origin
    options = RestoreOptions(in_place=True, delete=True)
    assert planned(world, options) == []
    way(world, options)
    assert kept.is_dir()


def test_what_was_deleted_of_a_strange_directory_comes_back_with_the_old_state(world: InPlaceWorld) -> None:
    write(world.origin / "a.txt", "held")
    world.snapshot()
    for name in ("strange/x.txt", "strange/in/y.txt", "strange/in/z.jpg", "strange/last.txt"):
        write(world.origin / name, name)
    settle(world.origin)
    before = seen(world.origin)
    options = RestoreOptions(chooser=Selection([b"*.txt"]), delete=True, keep_old=True)
    result = restore_in_place(world.repository, world.manifest, options)
    assert there(world) == ["a.txt", "strange", "strange/in", "strange/in/z.jpg"]
    roll_back_in_place(result.kept[0])
    assert seen(world.origin) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize(
    ("way", "chooser"), [(direct, EVERYTHING), (direct, Selection([], [b"x"])), (staged, Selection([], [b"x"]))]
)
def test_what_is_mounted_in_a_strange_directory_stays(world: InPlaceWorld, way: Way, chooser: Chooser) -> None:
    write(world.origin / "a.txt", "held")
    world.snapshot()
    outside, mounted = world.place / "outside", world.origin / "strange/mnt"
    write(outside / "precious", "precious")
    mounted.mkdir(parents=True)
    if subprocess.run(["mount", "--bind", outside, mounted], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        way(world, RestoreOptions(chooser=chooser, in_place=True, delete=True))
        assert (outside / "precious").exists()
        assert there(world) == ["a.txt", "strange", "strange/mnt", "strange/mnt/precious"]
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def test_what_was_moved_aside_stays(world: InPlaceWorld) -> None:
    long = "x" * 255
    for name in ("a", long):
        write(world.origin / name, "held")
    world.snapshot()
    options = RestoreOptions(conflict="rename", in_place=True, delete=True)
    aside = {"a.backstay-old", "x" * 242 + ".backstay-old", "a.backstay-old-2", "x" * 240 + ".backstay-old-2"}
    for text in ("once", "twice"):
        for name in ("a", long):
            write(world.origin / name, text)
        direct(world, options)
    write(world.origin / "strange.backstay-old", "of what the snapshot does not hold")
    assert set(there(world)) == {"a", long, *aside, "strange.backstay-old"}
    assert planned(world, options) == ["strange.backstay-old"]
    for way in (staged, direct):
        way(world, RestoreOptions(in_place=True, delete=True))
        assert set(there(world)) == {"a", long, *aside}


@ways
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("chooser", [EVERYTHING, Selection([b"*"])])
def test_a_file_system_that_the_backup_left_out_keeps_everything(
    world: InPlaceWorld, way: Way, chooser: Chooser
) -> None:
    """A backup of one file system has an empty directory where another is mounted."""
    write(world.origin / "a", "held")
    (world.origin / "mount").mkdir()
    world.snapshot()
    write(world.origin / "new", "new")
    if subprocess.run(["mount", "-t", "tmpfs", "none", world.origin / "mount"], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        write(world.origin / "mount/inner/precious", "the only copy")
        options = RestoreOptions(in_place=True, delete=True, chooser=chooser)
        assert planned(world, options) == ["new"]
        told = way(world, options)
        assert there(world) == ["a", "mount", "mount/inner", "mount/inner/precious"]
        assert "nothing in it was deleted" in str(told)
    finally:
        subprocess.run(["umount", world.origin / "mount"], check=True)


@pytest.mark.parametrize("way", [direct, staged, planned])
def test_a_snapshot_that_lacks_what_could_not_be_read_deletes_nothing(
    world: InPlaceWorld, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world.origin / "a", "held")
    write(world.origin / "closed/f", "the only copy")
    enter = OpenDirectory.enter

    def refused(self: OpenDirectory, entry: Stat) -> OpenDirectory:
        if entry[0] == b"closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return enter(self, entry)

    with monkeypatch.context() as closed:
        closed.setattr(OpenDirectory, "enter", refused)
        world.snapshot()
    with pytest.raises(InvalidRequest, match="1 item could not be read"):
        way(world, RestoreOptions(in_place=True, delete=True))
    assert there(world) == ["a", "closed", "closed/f"]
    way(world, RestoreOptions(in_place=True))


@ways
def test_one_that_cannot_go_keeps_no_other_from_going(
    world: InPlaceWorld, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world.origin / "a", "held")
    world.snapshot()
    for name in ("b", "c", "d"):
        write(world.origin / name, "strange")
    remove = TargetDirectory.remove

    def refused(self: TargetDirectory, name: bytes) -> None:
        if name == b"c":
            raise RestoreFailed("cannot remove c", cause="a test")
        remove(self, name)

    monkeypatch.setattr(TargetDirectory, "remove", refused)
    result = way(world, RestoreOptions(in_place=True, delete=True))
    if way is direct:
        assert there(world) == ["a", "c"]
        assert "origin/data/c'" in str(result)


def test_a_dry_run_names_what_goes_from_where_it_goes(world: InPlaceWorld, tmp_path: Path) -> None:
    write(world.origin / "a", "held")
    world.snapshot()
    out = tmp_path / "out"
    write(out / "stranger", "strange")
    options = RestoreOptions(path=os.fsencode(world.origin), delete=True)
    plan = plan_restore(world.repository, world.manifest, out, options)
    assert plan.to_delete == [str(out / "stranger")]
