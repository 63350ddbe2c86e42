"""Restores in place: what they change, what they leave, and what they refuse before anything was moved."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.core.events import Event, Started
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    Interrupted,
    InvalidRequest,
    RestoreConflict,
    RestoreFailed,
)
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.in_place_recovery import resume_in_place, roll_back_in_place
from backstay.operations.restore.journal import PREFIX, Journal
from backstay.operations.restore.run import RestoreOptions
from backstay.repository.repository import Environment, Repository
from backstay.sources import facts
from backstay.sources.switch_calls import SwitchCalls
from backstay.testing import CrashPoint
from tests.crash.small_world import SECRET
from tests.operations.in_place_world import (
    KEEP,
    OVERWRITE,
    BrokenCalls,
    InPlaceWorld,
    backed_up,
    changed,
    seen,
    settle,
    write,
)


def left(tree: Path) -> list[Path]:
    return [path for path in tree.parent.iterdir() if path.name.startswith(PREFIX.decode())]


def test_what_differs_comes_back_and_nothing_else_is_touched(world: InPlaceWorld) -> None:
    shutil.rmtree(world.origin)
    changed(world.origin)
    stays = (world.origin / "same").stat()
    tree = world.origin
    result = restore_in_place(world.repository, world.manifest, OVERWRITE)
    expected = world.place / "expected"
    backed_up(expected)
    assert seen(tree) == seen(expected)
    assert (tree / "same").stat().st_ino == stays.st_ino
    assert (result.added, result.removed, result.rolled_back) == (2, 2, False)
    assert result.verified >= result.files > 0
    assert not left(tree)


def test_what_is_right_already_is_not_staged(world: InPlaceWorld) -> None:
    calls = BrokenCalls()
    result = restore_in_place(world.repository, world.manifest, OVERWRITE, calls=calls)
    assert calls.count == 0
    assert (result.files, result.unchanged) == (0, 11)


def test_without_overwrite_what_differs_keeps_everything_as_it_is(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    before = seen(tree)
    with pytest.raises(RestoreConflict) as failed:
        world.restore(tree, RestoreOptions())
    assert any(path.endswith("dir/differs") for path in failed.value.paths)
    assert seen(tree) == before


@pytest.mark.parametrize("conflict", ["skip", "newer"])
def test_what_may_stay_stays(world: InPlaceWorld, conflict: str) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    result = world.restore(tree, replace(OVERWRITE, conflict=conflict, delete=False))  # type: ignore[arg-type]
    assert result.skipped > 0
    assert (tree / "differs").read_text() == "changed"
    assert (tree / "lost dir/inner/file").read_text() == "file in it"
    assert (tree / "dir/stranger").exists()


def test_the_old_state_can_be_had_back_later(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    before = seen(tree)
    result = world.restore(tree, KEEP)
    (kept,) = result.kept
    assert seen(tree) != before
    assert (kept / "items/differs").read_text() == "changed"
    assert world.restore(tree).recovered == ()  # another restore leaves it alone
    assert kept.exists()
    assert roll_back_in_place(kept).did == "undone"
    assert seen(tree) == before
    assert not left(tree)


def test_what_was_written_since_is_set_aside_when_the_old_state_comes_back(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    (kept,) = world.restore(tree, KEEP).kept
    write(tree / "fresh", "written since")
    fresh = tree / "differs.tmp"
    fresh.write_text("written since")
    fresh.rename(tree / "differs")
    problems = roll_back_in_place(kept).problems
    assert [problem.path for problem in problems] == [os.fsencode(tree / "differs")]
    assert (tree / "differs").read_text() == "changed"
    assert (tree / "differs.backstay-old").read_text() == "written since"
    assert (tree / "fresh").read_text() == "written since"


def test_a_whole_directory_that_is_gone_comes_back_with_those_above_it(world: InPlaceWorld) -> None:
    expected = seen(world.origin)
    shutil.rmtree(world.origin.parent)
    restore_in_place(world.repository, world.manifest, OVERWRITE)
    assert seen(world.origin) == expected


def test_only_what_is_chosen_changes(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)

    class OnlyDirectory:
        def selects(self, path: bytes, is_dir: bool) -> bool:
            return b"/dir/" in path

        def may_contain(self, path: bytes) -> bool:
            return path == os.fsencode(world.origin) or path.endswith(b"/dir")

    world.restore(tree, replace(OVERWRITE, chooser=OnlyDirectory(), delete=False))
    assert (tree / "dir/differs").read_text() == "as it was, too"
    assert (tree / "differs").read_text() == "changed"
    assert not (tree / "lost").exists()


def test_a_single_file_is_put_back(world: InPlaceWorld) -> None:
    (world.origin / "differs").write_text("changed")
    options = replace(OVERWRITE, path=os.fsencode(world.origin / "differs"), delete=False)
    result = restore_in_place(world.repository, world.manifest, options)
    assert (result.files, result.replaced) == (1, 1)
    assert (world.origin / "differs").read_text() == "as it was"


def test_an_item_far_below_is_put_back(tmp_path: Path) -> None:
    """Its path is longer than those that the system takes."""
    world, names = InPlaceWorld(tmp_path), ["n" * 200] * 25
    world.origin.mkdir(parents=True)
    here = os.open(world.origin, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        above, here = here, os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(above)

    def put(text: str) -> None:
        with open("leaf", "w", opener=partial(os.open, dir_fd=here)) as file:
            file.write(text)

    put("as it was")
    world.snapshot()
    put("changed")
    assert restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False)).replaced == 1
    with open("leaf", opener=partial(os.open, dir_fd=here)) as file:
        assert file.read() == "as it was"
    os.close(here)


# -- before anything was moved


def refused(
    world: InPlaceWorld, kind: type[BackstayError], act: Callable[[], object], tree: Path | None = None
) -> BackstayError:
    tree = tree or world.origin
    before = seen(tree)
    with pytest.raises(kind) as failed:
        act()
    assert seen(tree) == before
    assert not left(tree)
    assert failed.value.hint
    return failed.value


def test_damage_in_the_repository_changes_nothing(world: InPlaceWorld) -> None:
    (world.origin / "differs").write_text("changed")
    for info in list(world.repository.backend.list("packs/")):
        world.repository.backend.delete(info.name)
    world.repository = Repository.open(world.repository.backend, SECRET, environment=Environment(threads=1))
    refused(world, CorruptedBackup, lambda: restore_in_place(world.repository, world.manifest, OVERWRITE))


def test_too_little_room_changes_nothing(world: InPlaceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.origin / "differs").write_text("changed")
    there = os.statvfs(world.origin)
    full = os.statvfs_result([*there[:3], 0, 0, *there[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    refused(world, InsufficientSpace, lambda: restore_in_place(world.repository, world.manifest, OVERWRITE))


def test_a_missing_parent_is_told(world: InPlaceWorld) -> None:
    error = refused(world, RestoreFailed, lambda: world.restore(world.place / "no/such/data"))
    assert "is not there" in error.cause


def test_the_whole_system_is_refused(world: InPlaceWorld) -> None:
    manifest = msgspec.structs.replace(world.manifest, paths=(b"/",))
    refused(world, InvalidRequest, lambda: restore_in_place(world.repository, manifest, OVERWRITE))


def test_rename_is_refused(world: InPlaceWorld) -> None:
    refused(world, InvalidRequest, lambda: world.restore(world.origin, replace(OVERWRITE, conflict="rename")))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_mounted_file_systems_are_staged_on_their_own_or_refused(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    mounted, strange = tree / "dir", tree / "strange dir"
    done = [subprocess.run(["mount", "-t", "tmpfs", "none", path], check=False) for path in (mounted, strange)]
    if any(one.returncode for one in done):
        pytest.skip("cannot mount here")
    try:
        write(mounted / "differs", "on another file system")
        before = seen(tree)
        with pytest.raises(RestoreFailed) as failed:
            world.restore(tree)
        assert "is mounted at" in failed.value.cause
        assert seen(tree) == before
        subprocess.run(["umount", strange], check=True)
        result = world.restore(tree, KEEP)
        assert (mounted / "differs").read_text() == "as it was, too"
        assert sorted(path.parent for path in result.kept) == sorted([tree.parent, mounted])
        roll_back_in_place(result.kept[1])  # each of the directories leads to the journal
        assert (mounted / "differs").read_text() == "on another file system"
        assert (tree / "differs").read_text() == "changed"
    finally:
        subprocess.run(["umount", mounted], check=False)
        subprocess.run(["umount", "-q", strange], check=False)


def test_the_repository_is_never_moved_away(tmp_path: Path) -> None:
    world = InPlaceWorld(tmp_path)
    backed_up(world.origin)
    inside = world.origin / "inside/repository"
    inside.parent.mkdir()
    world.repository = Repository.create(str(inside), SECRET, environment=Environment(threads=1))
    world.snapshot(b"/**/inside")
    result = restore_in_place(world.repository, world.manifest, OVERWRITE)
    assert result.removed == 0
    with pytest.raises(InvalidRequest, match="inside the repository"):
        world.restore(inside / "packs")


def test_another_process_at_work_is_left_alone(world: InPlaceWorld) -> None:
    (world.origin / "differs").write_text("changed")
    place = os.fsencode(world.origin.parent) + b"/" + PREFIX + b"other"
    journal = Journal.begin((place,), "other", keep_old=False, calls=SwitchCalls())
    try:
        with pytest.raises(RestoreConflict, match="another restore"):
            restore_in_place(world.repository, world.manifest, OVERWRITE)
    finally:
        journal.close()
    assert restore_in_place(world.repository, world.manifest, OVERWRITE).recovered == ("cleared",)


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_directory_that_others_may_write_to_is_not_trusted(world: InPlaceWorld, mode: int) -> None:
    place = world.origin.parent / f"{PREFIX.decode()}planted"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(RestoreConflict, match="not trusted"):
        resume_in_place(place)
    restore_in_place(world.repository, world.manifest, OVERWRITE)
    assert place.exists()


# -- while it goes on


def test_a_change_in_between_puts_everything_back(world: InPlaceWorld) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    before = seen(tree)

    class Meddling(SwitchCalls):
        def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
            if one == b"differs" and (tree / "was a dir").is_dir():
                (tree / "was a dir").rename(tree / "moved")
                (tree / "was a dir").write_text("by another program")
            super().exchange(one_fd, one, other_fd, other)

    result = world.restore(tree, calls=Meddling())
    assert result.rolled_back
    assert isinstance(result.error, RestoreConflict)
    after = seen(tree)
    assert {name: after[name] for name in ("differs", "dir", "dir/differs", "linked too")} == {
        name: before[name] for name in ("differs", "dir", "dir/differs", "linked too")
    }
    contents = {path.read_text() for path in tree.iterdir() if path.name.startswith("was a dir") and path.is_file()}
    assert "by another program" in contents
    assert not left(tree)


@pytest.mark.parametrize("operation", ["restore", "verify restored files", "switch"])
def test_an_interruption_leaves_nothing(world: InPlaceWorld, operation: str) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    before = seen(tree)

    def stop(event: Event) -> None:
        if isinstance(event, Started) and event.operation == operation:
            raise Interrupted("stopped")

    options = replace(OVERWRITE, path=os.fsencode(world.origin))
    with pytest.raises(Interrupted):
        restore_in_place(world.repository, world.manifest, options, target=tree, events=stop)
    assert seen(tree) == before
    assert not left(tree)


# -- a law


NAMES = st.sampled_from(["a", "b", "c"])
LEAF = st.one_of(st.text("xy", max_size=3), st.just(None))
TREES = st.recursive(
    st.dictionaries(NAMES, LEAF, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAF, inner), max_size=3),
    max_leaves=8,
)


def grow(root: Path, tree: dict[str, object], at: int) -> None:
    root.mkdir(parents=True)
    for name, what in tree.items():
        if isinstance(what, dict):
            grow(root / name, what, at)
        elif what is None:
            (root / name).symlink_to("nowhere")
            os.utime(root / name, ns=(at, at), follow_symlinks=False)
        else:
            write(root / name, str(what), mode=0o640 if at % 2 else 0o600, at=at)
    settle(root, at)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(old=TREES, new=TREES, at=st.integers(1, 60), after=st.booleans(), can_exchange=st.booleans(), back=st.booleans())
def test_any_tree_is_the_old_or_the_new_one_after_any_stop(
    old: dict[str, object], new: dict[str, object], at: int, after: bool, can_exchange: bool, back: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        world = InPlaceWorld(Path(place))
        grow(world.origin, new, 3)
        world.snapshot()
        tree = Path(place) / "tree/data"
        grow(tree, old, 4)
        wanted, before = seen(world.origin), seen(tree)
        try:
            result = world.restore(tree, calls=BrokenCalls(at, after=after, can_exchange=can_exchange))
            assert result.error is None
            back = False
        except CrashPoint:
            for found in left(tree):
                try:
                    (roll_back_in_place if back else resume_in_place)(found)
                except RestoreConflict:
                    back = False
        if back and seen(tree) == before:
            return
        assert world.restore(tree).error is None
        assert seen(tree) == wanted
        assert not left(tree)


def test_only_directories_of_restores_are_emptied(tmp_path: Path) -> None:
    """Somebody's own directory may have things of the same names in it."""
    (tmp_path / "project/items").mkdir(parents=True)
    (tmp_path / "project/items/mine").write_text("mine")
    (tmp_path / "project/rows").write_text("mine too")
    for act in (roll_back_in_place, resume_in_place):
        with pytest.raises(RestoreConflict, match="not a directory that a restore keeps"):
            act(tmp_path / "project")
    assert (tmp_path / "project/items/mine").read_text() == "mine"
    assert (tmp_path / "project/rows").read_text() == "mine too"


def test_an_old_state_whose_journal_is_lost_is_not_removed(world: InPlaceWorld) -> None:
    (world.origin / "differs").write_text("precious")
    (kept,) = restore_in_place(world.repository, world.manifest, KEEP).kept
    (kept / "state.json").unlink()
    before = digest_of(kept)
    for act in (roll_back_in_place, resume_in_place):
        with pytest.raises(RestoreFailed, match="not what a restore wrote"):
            act(kept)
    (world.origin / "differs").write_text("again")
    with pytest.raises(RestoreFailed, match="not what a restore wrote"):
        restore_in_place(world.repository, world.manifest, OVERWRITE)
    assert digest_of(kept) == before


def digest_of(tree: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()
    }


def test_directories_keep_their_times_when_names_become_one_file_again(tmp_path: Path) -> None:
    world = InPlaceWorld(tmp_path)
    write(world.origin / "one", "two names")
    (world.origin / "d").mkdir()
    (world.origin / "d/two").hardlink_to(world.origin / "one")
    settle(world.origin)
    world.snapshot()
    before = seen(world.origin)
    (world.origin / "d/two").unlink()
    settle(world.origin)
    assert restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False)).files == 2
    assert seen(world.origin) == before


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_cannot_be_switched_is_named(world: InPlaceWorld, can_exchange: bool) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    before = seen(tree)

    class Immutable(SwitchCalls):
        def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
            if not can_exchange:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._refuse(one)
            super().exchange(one_fd, one, other_fd, other)

        def move(self, from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
            self._refuse(old)
            super().move(from_fd, old, to_fd, new)

        def _refuse(self, name: bytes) -> None:
            if name == b"mode":
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tree / "dir/mode").write_text("changed")
    result = world.restore(tree, calls=Immutable())
    assert result.error is not None
    assert result.error.cause == f"{tree}/dir/mode: operation not permitted"
    assert seen(tree).keys() == before.keys()


@pytest.mark.parametrize("when", [-(10**18) * 9, 10**18 * 16])
def test_odd_attributes_come_back_with_the_old_state(world: InPlaceWorld, when: int) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    try:
        os.setxattr(tree / "dir", b"user.\xff odd", b"")
        os.setxattr(tree / "same", b"user.\xff odd", bytes(range(256)))
    except OSError:
        pytest.skip("no user attributes here")
    os.utime(tree / "same", ns=(when, when))
    before = seen(tree)
    (kept,) = world.restore(tree, KEEP).kept
    assert os.listxattr(tree / "same") == []
    roll_back_in_place(kept)
    assert seen(tree) == before
    assert os.getxattr(tree / "dir", b"user.\xff odd") == b""
    assert os.getxattr(tree / "same", b"user.\xff odd") == bytes(range(256))


def test_an_item_that_does_not_tell_what_it_looks_like_stops_the_restore_at_its_path(
    world: InPlaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = world.place / "tree/data"
    changed(tree)

    def too_much(*_: object, **__: object) -> None:
        raise OSError(errno.E2BIG, "they have more than 16 MiB")

    monkeypatch.setattr(facts, "xattrs_of", too_much)
    before = seen(tree)
    with pytest.raises(RestoreFailed, match="cannot examine") as failed:
        world.restore(tree)
    assert failed.value.cause == "they have more than 16 mib"
    assert seen(tree) == before
    assert not left(tree)
