"""A restore in place, stopped or failing at every call: undone it leaves the old tree, finished the new one."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from backstay.errors import BackstayError, RestoreConflict
from backstay.operations.restore.in_place_recovery import resume_in_place, roll_back_in_place
from backstay.operations.restore.journal import PREFIX
from backstay.testing import CrashPoint
from tests.crash.scenarios import sample
from tests.operations.in_place_world import BrokenCalls, InPlaceWorld, Seen, backed_up, changed, seen, settle

pytestmark = pytest.mark.crash


class Tried:
    """A world, and as many equal old trees as are asked for."""

    def __init__(self, place: Path) -> None:
        self.world = InPlaceWorld(place)
        backed_up(self.world.origin)
        self.world.snapshot()
        self.new = seen(self.world.origin)
        self._count = 0
        self.old = seen(self.tree())

    def tree(self) -> Path:
        """The old tree, in a directory of its own whose time is known as well."""
        self._count += 1
        above = self.world.place / f"tree-{self._count}"
        changed(above / "data")
        settle(above, at=10)
        return above / "data"

    def calls(self, *, can_exchange: bool) -> int:
        counted = BrokenCalls(can_exchange=can_exchange)
        tree = self.tree()
        assert self.world.restore(tree, calls=counted).error is None
        assert seen(tree) == self.new
        return counted.count

    def stopped(self, at: int, *, after: bool, can_exchange: bool) -> Stopped:
        """A tree in which a restore was stopped, the directories that it left, and whether it had come to its end."""
        tree = self.tree()
        calls = BrokenCalls(at, after=after, can_exchange=can_exchange)
        with pytest.raises(CrashPoint):
            self.world.restore(tree, calls=calls)
        states = calls.names.count("replace") - (calls.names[-1] == "replace" and not after)
        return Stopped(tree, left(tree), done=states >= 3)  # staging, switching, done, clearing


@dataclass
class Stopped:
    tree: Path
    places: list[Path]
    done: bool


def left(tree: Path) -> list[Path]:
    return [path for path in tree.parent.iterdir() if path.name.startswith(PREFIX.decode())]


def above(tree: Path) -> Seen:
    """The directory that a tree lies in, with its time."""
    return {name: what for name, what in seen(tree.parent).items() if name in (".", "data")}


@pytest.fixture
def tried(place: Path) -> Tried:
    return Tried(place)


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("after", [False, True])
def test_undone_after_a_stop_anywhere_it_leaves_the_old_tree(tried: Tried, can_exchange: bool, after: bool) -> None:
    untouched = above(tried.tree())
    for at in sample(tried.calls(can_exchange=can_exchange), 24, "undone"):
        stopped = tried.stopped(at, after=after, can_exchange=can_exchange)
        for place in stopped.places:
            if stopped.done:
                with suppress(RestoreConflict):  # the old state is not kept any more
                    roll_back_in_place(place)
            else:
                assert roll_back_in_place(place).rolled_back
        assert seen(stopped.tree) == (tried.new if stopped.done else tried.old), f"call {at}"
        assert stopped.done or at == 1 or above(stopped.tree) == untouched, f"call {at}"  # 1: the time follows mkdir
        assert not left(stopped.tree)


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("after", [False, True])
def test_finished_after_a_stop_anywhere_it_leaves_the_new_tree(tried: Tried, can_exchange: bool, after: bool) -> None:
    for at in sample(tried.calls(can_exchange=can_exchange), 24, "finished"):
        stopped = tried.stopped(at, after=after, can_exchange=can_exchange)
        for place in stopped.places:
            if resume_in_place(place).did == "cleared" and not stopped.done:
                assert seen(stopped.tree) == tried.old, f"call {at}"
                assert tried.world.restore(stopped.tree).error is None
        if not stopped.places and not stopped.done:
            assert tried.world.restore(stopped.tree).error is None
        assert seen(stopped.tree) == tried.new, f"call {at}"
        assert not left(stopped.tree)


def test_the_next_restore_finishes_what_was_stopped_anywhere(tried: Tried) -> None:
    for at in sample(tried.calls(can_exchange=True), 24, "again"):
        stopped = tried.stopped(at, after=False, can_exchange=True)
        assert tried.world.restore(stopped.tree).error is None
        assert seen(stopped.tree) == tried.new, f"call {at}"
        assert not left(stopped.tree)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_stopped_while_it_is_undone_it_can_be_undone_again(tried: Tried, can_exchange: bool) -> None:
    middle = tried.calls(can_exchange=can_exchange) - 20
    counted = BrokenCalls(can_exchange=can_exchange)
    (place,) = tried.stopped(middle, after=False, can_exchange=can_exchange).places
    roll_back_in_place(place, calls=counted)
    assert counted.names.count("move") > 3
    for at in sample(counted.count, 24, "undone twice"):
        stopped = tried.stopped(middle, after=False, can_exchange=can_exchange)
        with pytest.raises(CrashPoint):
            roll_back_in_place(stopped.places[0], calls=BrokenCalls(at, can_exchange=can_exchange))
        for place in left(stopped.tree):
            roll_back_in_place(place)
        assert seen(stopped.tree) == tried.old, f"call {at}"


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC])
def test_a_failure_anywhere_leaves_one_tree_or_the_other(tried: Tried, can_exchange: bool, fault: int) -> None:
    for at in sample(tried.calls(can_exchange=can_exchange), 24, "failing"):
        tree = tried.tree()
        try:
            result = tried.world.restore(tree, calls=BrokenCalls(at, fault=fault, can_exchange=can_exchange))
        except BackstayError:
            assert seen(tree) == tried.old, f"call {at}"
            continue
        assert (result.error is None) == (not result.rolled_back)
        assert seen(tree) == (tried.old if result.rolled_back else tried.new), f"call {at}: {result}"
