"""The old state after a restore in place: it comes back, and what was written since stays."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.errors import InsufficientSpace, RestoreFailed
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.sources.switch_calls import SwitchCalls
from backstay.testing import CrashPoint
from tests.operations.in_place_world import KEEP, OVERWRITE, BrokenCalls, InPlaceWorld, seen, settle, write


@pytest.fixture
def empty(tmp_path: Path) -> InPlaceWorld:
    """A world in which nothing was backed up yet."""
    return InPlaceWorld(tmp_path)


def replace_file(path: Path, text: str) -> None:
    """As editors do: another file gets its name."""
    fresh = path.parent / "fresh"
    fresh.write_text(text)
    fresh.rename(path)


def test_what_has_the_longest_name_is_set_aside_too(empty: InPlaceWorld) -> None:
    tree, name = empty.place / "tree/data", "n" * 255
    write(empty.origin / name, "as it was")
    empty.snapshot()
    write(tree / name, "changed")
    settle(tree)
    (kept,) = empty.restore(tree, KEEP).kept
    replace_file(tree / name, "written since")
    assert [problem.path for problem in roll_back_in_place(kept).problems] == [bytes(tree / name)]
    assert (tree / name).read_text() == "changed"
    assert (tree / ("n" * 242 + ".backstay-old")).read_text() == "written since"


class FullDisk(SwitchCalls):
    """No inode is free once it is decided to switch, and `fails` cannot be moved forwards."""

    def __init__(self, fails: bytes, *, can_exchange: bool) -> None:
        self._fails, self._can_exchange = fails, can_exchange
        self.states: list[bytes] = []

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        super().replace(fd, old, new)
        self.states.append(old)

    def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
        if not self._can_exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(one_fd, one, other_fd, other)

    def move(self, from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
        if old == self._fails and self.states[-1] == b"state.switching":
            raise _no_space()
        super().move(from_fd, old, to_fd, new)

    def mkdir(self, fd: int, name: bytes) -> None:
        if b"state.switching" in self.states:
            raise _no_space()
        super().mkdir(fd, name)


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("can_exchange", [True, False])
def test_neither_the_switch_nor_its_undoing_needs_room(empty: InPlaceWorld, can_exchange: bool) -> None:
    tree = empty.place / "tree/data"
    for directory in ("one", "two"):
        write(empty.origin / directory / "inner/file", "as it was")
    empty.snapshot()
    for directory in ("one", "two"):
        write(tree / directory / "inner/file", "changed")
        write(tree / directory / "inner/strange", "new since")
    settle(tree)
    before = seen(tree)
    result = empty.restore(tree, calls=FullDisk(b"strange", can_exchange=can_exchange))
    assert (result.rolled_back, type(result.error)) == (True, InsufficientSpace)
    assert seen(tree) == before
    (tree / "two/inner/strange").rename(tree / "two/inner/stranger")
    result = empty.restore(tree, replace(OVERWRITE, delete=False), FullDisk(b"", can_exchange=can_exchange))
    assert result.error is None
    assert not [path for path in tree.parent.iterdir() if path != tree]


def test_too_little_room_for_what_is_to_be_removed_is_told_before_the_switch(empty: InPlaceWorld) -> None:
    class NoInodes(SwitchCalls):
        def mkdir(self, fd: int, name: bytes) -> None:
            if name == b"inner":
                raise _no_space()
            super().mkdir(fd, name)

    tree = empty.place / "tree/data"
    write(empty.origin / "inner/file", "the same")
    empty.snapshot()
    write(tree / "inner/file", "the same")
    write(tree / "inner/strange", "new since")
    settle(tree)
    before = seen(tree)
    with pytest.raises(InsufficientSpace):
        empty.restore(tree, calls=NoInodes())
    assert seen(tree) == before
    assert list(tree.parent.iterdir()) == [tree]


# -- what was written since


def aside(tree: Path) -> dict[str, str]:
    """What was set aside, with the content of files."""
    found = [path for path in tree.rglob("*") if ".backstay-old" in str(path) and path.is_file()]
    return {str(path.relative_to(tree)): path.read_text() for path in found}


@pytest.fixture
def restored(empty: InPlaceWorld) -> Path:
    """A tree in which a restore, which kept the old state, has put a directory and a file."""
    tree = empty.place / "tree/data"
    write(empty.origin / "dir/inner/file", "as it was")
    write(empty.origin / "file", "as it was")
    empty.snapshot()
    write(tree / "file", "changed")
    settle(tree)
    empty.restore(tree, KEEP)
    return tree


def kept(tree: Path) -> Path:
    (found,) = tree.parent.glob(".backstay-restore-*")
    return found


def add_a_file(tree: Path) -> None:
    (tree / "dir/inner/precious").write_text("work")


def write_in_place(tree: Path) -> None:
    (tree / "dir/inner/file").write_text("work")


def write_without_a_trace(tree: Path) -> None:
    """Another content of the same length and with the same time."""
    before = (tree / "dir/inner/file").stat()
    (tree / "dir/inner/file").write_text("as it is ")
    os.utime(tree / "dir/inner/file", ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_a_file(tree: Path) -> None:
    (tree / "dir/inner/file").unlink()


@pytest.mark.parametrize(
    ("act", "there"),
    [
        (add_a_file, {"file": "as it was", "precious": "work"}),
        (write_in_place, {"file": "work"}),
        (write_without_a_trace, {"file": "as it is "}),
        (remove_a_file, {}),
    ],
)
def test_a_restored_directory_that_was_written_to_stays_under_another_name(
    restored: Path, act: Callable[[Path], None], there: dict[str, str]
) -> None:
    act(restored)
    done = roll_back_in_place(kept(restored))
    assert [problem.path for problem in done.problems] == [os.fsencode(restored / "dir")]
    assert sorted(path.name for path in restored.iterdir()) == ["dir.backstay-old", "file"]
    assert aside(restored) == {f"dir.backstay-old/inner/{name}": text for name, text in there.items()}
    assert (restored / "file").read_text() == "changed"
    assert list(restored.parent.iterdir()) == [restored]


def test_a_restored_file_that_was_written_to_stays_under_another_name(restored: Path) -> None:
    (restored / "file").write_text("work")
    done = roll_back_in_place(kept(restored))
    assert [problem.path for problem in done.problems] == [os.fsencode(restored / "file")]
    assert (restored / "file").read_text() == "changed"
    assert aside(restored) == {"file.backstay-old": "work"}


def test_what_only_looks_different_to_others_goes_with_the_restore(restored: Path) -> None:
    (restored / "dir").chmod(0o700)
    os.utime(restored / "dir/inner")
    (restored / "file").chmod(0o600)
    assert roll_back_in_place(kept(restored)).problems == ()
    assert [path.name for path in restored.iterdir()] == ["file"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_is_written_while_a_switch_fails_stays(empty: InPlaceWorld, can_exchange: bool) -> None:
    tree = empty.place / "tree/data"
    write(empty.origin / "a", "as it was")
    write(empty.origin / "b/file", "as it was")
    empty.snapshot()
    write(tree / "a", "changed")
    write(tree / "b", "a file by now")

    class Busy(BrokenCalls):
        worked = False

        def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
            super().exchange(one_fd, one, other_fd, other)
            self._work()

        def move(self, from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
            super().move(from_fd, old, to_fd, new)
            self._work()

        def _work(self) -> None:
            if not self.worked and (tree / "b/file").exists() and (tree / "a").read_text() == "as it was":
                self.worked = True
                (tree / "b/file").write_text("work")
                (tree / "a").write_text("other work")
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    result = empty.restore(tree, calls=Busy(can_exchange=can_exchange))
    assert result.rolled_back
    assert {problem.path for problem in result.problems} == {os.fsencode(tree / name) for name in ("a", "b")}
    assert aside(tree) == {"a.backstay-old": "other work", "b.backstay-old/file": "work"}
    assert [(tree / name).read_text() for name in ("a", "b")] == ["changed", "a file by now"]


def test_a_stop_while_what_was_written_is_set_aside_loses_nothing(restored: Path) -> None:
    add_a_file(restored)
    (restored / "file").write_text("other work")
    place = kept(restored)
    at = 0
    while place.exists():
        at += 1
        with suppress(CrashPoint):
            roll_back_in_place(place, calls=BrokenCalls(at))
            break
    assert at > 8
    assert aside(restored) == {
        "dir.backstay-old/inner/file": "as it was",
        "dir.backstay-old/inner/precious": "work",
        "file.backstay-old": "other work",
    }
    assert (restored / "file").read_text() == "changed"


def test_the_next_restore_tells_what_it_set_aside(empty: InPlaceWorld, restored: Path) -> None:
    (restored / "file").write_text("work")
    with pytest.raises(CrashPoint):
        roll_back_in_place(kept(restored), calls=BrokenCalls(3))
    result = empty.restore(restored)
    assert result.recovered == ("undone",)
    assert [problem.path for problem in result.problems] == [os.fsencode(restored / "file")]
    assert aside(restored) == {"file.backstay-old": "work"}


# -- what cannot come back as it was


@pytest.fixture
def three(empty: InPlaceWorld) -> Path:
    """A tree in which a restore, which kept the old state, has replaced a file in each of three directories."""
    tree = empty.place / "tree/data"
    for name in ("a", "b", "c"):
        write(empty.origin / name / "inner/file", "as it was")
    empty.snapshot()
    for name in ("a", "b", "c"):
        write(tree / name / "inner/file", "changed")
        (tree / name / "inner").chmod(0o750)
    settle(tree)
    return tree


def test_directories_that_are_gone_are_made_anew_for_what_comes_back(empty: InPlaceWorld, three: Path) -> None:
    before = seen(three)
    empty.restore(three, KEEP)
    shutil.rmtree(three / "a")
    settle(three)
    done = roll_back_in_place(kept(three))
    assert [problem.path for problem in done.problems] == [os.fsencode(three / name) for name in ("a", "a/inner")]
    assert seen(three) == before


def test_what_has_no_place_any_more_keeps_nothing_else_from_coming_back(empty: InPlaceWorld, three: Path) -> None:
    empty.restore(three, KEEP)
    (three / "c/inner/file").write_text("written since")
    (three / "a").rename(three / "moved")
    (three / "a").write_text("a file by now")
    place = kept(three)
    with pytest.raises(RestoreFailed, match="cannot be put back") as failed:
        roll_back_in_place(place)
    assert f"{three}/a/inner/file: not a directory" in failed.value.cause
    assert "c/inner/file: it changed meanwhile, and is now file.backstay-old" in failed.value.cause
    assert [(three / name / "inner/file").read_text() for name in ("b", "c")] == ["changed", "changed"]
    assert (place / "items/a/inner/file").read_text() == "changed"
    assert (three / "a").read_text() == "a file by now"
    with pytest.raises(RestoreFailed, match="cannot be put back"):
        empty.restore(three)
    (three / "a").unlink()
    (three / "moved").rename(three / "a")
    assert roll_back_in_place(place).problems == ()
    assert (three / "a/inner/file").read_text() == "changed"
    assert not place.exists()


def test_all_that_cannot_come_back_is_counted(empty: InPlaceWorld, three: Path) -> None:
    empty.restore(three, KEEP)
    for name in ("a", "b"):
        shutil.rmtree(three / name)
        (three / name).symlink_to(three / "c")
    with pytest.raises(RestoreFailed) as failed:
        roll_back_in_place(kept(three))
    assert "not a directory, and 1 more could not be put back" in failed.value.cause
    assert (three / "c/inner/file").read_text() == "changed"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_that_is_renamed_during_the_switch_lets_the_others_come_back(
    empty: InPlaceWorld, three: Path, can_exchange: bool
) -> None:
    class Renames(BrokenCalls):
        def step(self, what: str) -> None:
            if not (three / "renamed").exists():
                (three / "b").rename(three / "renamed")

    result = empty.restore(three, calls=Renames(can_exchange=can_exchange))
    assert result.rolled_back
    assert [(three / name / "inner/file").read_text() for name in ("a", "b", "c")] == ["changed"] * 3
    assert (three / "renamed/inner/file").read_text() == "as it was"
    assert not list(three.parent.glob(".backstay-restore-*"))


def test_what_was_never_switched_needs_no_place(empty: InPlaceWorld, three: Path) -> None:
    class Renames(BrokenCalls):
        def replace(self, fd: int, old: bytes, new: bytes) -> None:
            super().replace(fd, old, new)
            if old == b"state.switching":
                (three / "b").rename(three / "renamed")

    result = empty.restore(three, calls=Renames())
    assert result.rolled_back
    gone = {os.path.relpath(os.fsdecode(problem.path), three) for problem in result.problems}
    assert gone == {"b", "b/inner", "b/inner/file"}
    names = ("a", "renamed", "c")
    assert [(three / name / "inner/file").read_text() for name in names] == ["changed"] * 3
    assert not (three / "b").exists()
