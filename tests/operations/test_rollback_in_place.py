"""The old state after a restore in place: it comes back, and what was written since stays."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.errors import InsufficientSpace
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.sources.switch_calls import SwitchCalls
from tests.operations.in_place_world import KEEP, OVERWRITE, InPlaceWorld, seen, settle, write


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
