"""Old items that are written to while a restore in place replaces them stay under another name."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from backstay.operations.restore import in_place
from backstay.operations.restore.in_place_recovery import resume_in_place, roll_back_in_place
from backstay.testing import CrashPoint
from tests.operations.in_place_world import KEEP, OVERWRITE, BrokenCalls, InPlaceWorld, changed, settle, write

SWITCHING: Final = b"state.switching"
CLEARING: Final = b"state.clearing"


class Acts(BrokenCalls):
    """Does something once when a state has got its name; `at` as in BrokenCalls."""

    def __init__(self, act: Callable[[], object], state: bytes = SWITCHING, at: int = 0) -> None:
        super().__init__(at)
        self._act, self._state = act, state

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        super().replace(fd, old, new)
        if old == self._state:
            self._act()


@pytest.fixture
def empty(tmp_path: Path) -> InPlaceWorld:
    found = InPlaceWorld(tmp_path)
    write(found.origin / "a", "as it was")
    write(found.origin / "was a dir", "now a file")
    found.snapshot()
    return found


@pytest.fixture
def tree(empty: InPlaceWorld) -> Path:
    tree = empty.place / "tree/data"
    write(tree / "a", "changed")
    write(tree / "was a dir/inner/file", "old")
    write(tree / "stranger", "old")
    write(tree / "strange dir/inner/file", "old")
    settle(tree)
    return tree


def aside(tree: Path) -> dict[str, str]:
    found = [path for path in tree.rglob("*") if ".backstay-old" in str(path) and path.is_file()]
    return {str(path.relative_to(tree)): path.read_text() for path in found}


OLD: Final = {
    "a": "a.backstay-old",
    "was a dir/inner/file": "was a dir.backstay-old/inner/file",
    "stranger": "stranger.backstay-old",
    "strange dir/inner/file": "strange dir.backstay-old/inner/file",
}


@pytest.mark.parametrize("name", OLD)
def test_what_is_written_before_the_switch_stays_and_is_told(empty: InPlaceWorld, tree: Path, name: str) -> None:
    result = empty.restore(tree, calls=Acts(lambda: (tree / name).write_text("work")))
    assert (result.rolled_back, result.replaced, result.removed) == (False, 2, 2)
    assert [problem.path for problem in result.problems] == [os.fsencode(tree / name.partition("/")[0])]
    assert "backstay-old" in result.problems[0].message
    assert aside(tree) == {OLD[name]: "work"}
    assert ((tree / "a").read_text(), (tree / "was a dir").read_text()) == ("as it was", "now a file")
    assert list(tree.parent.iterdir()) == [tree]


@pytest.mark.parametrize("name", OLD)
def test_what_is_written_with_the_same_size_and_time_stays_too(empty: InPlaceWorld, tree: Path, name: str) -> None:
    def work() -> None:
        before = (tree / name).stat()
        (tree / name).write_text("w" * before.st_size)
        os.utime(tree / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    empty.restore(tree, calls=Acts(work))
    assert list(aside(tree)) == [OLD[name]]


def test_what_is_written_through_a_file_that_was_open_stays(empty: InPlaceWorld, tree: Path) -> None:
    with (tree / "a").open("w") as file:
        print("old", end="", file=file, flush=True)
        empty.restore(tree, calls=Acts(partial(print, ", and work", end="", file=file, flush=True), b"state.done"))
    assert aside(tree) == {"a.backstay-old": "old, and work"}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_nobody_writes_to_goes(world: InPlaceWorld, can_exchange: bool) -> None:
    tree = world.place / "tree/data"
    changed(tree)
    (tree / "strange dir/second").hardlink_to(tree / "dir/stranger")
    (tree / "third").hardlink_to(tree / "dir/stranger")
    (tree / "linked too").unlink()
    (tree / "linked too").hardlink_to(tree / "linked")
    (tree / "linked").write_text("another text")
    assert world.restore(tree, calls=BrokenCalls(can_exchange=can_exchange)).problems == ()
    assert aside(tree) == {}


def test_what_was_written_comes_back_with_an_old_state_that_is_kept(empty: InPlaceWorld, tree: Path) -> None:
    result = empty.restore(tree, KEEP, Acts(lambda: (tree / "a").write_text("work")))
    assert aside(tree) == {}
    assert roll_back_in_place(result.kept[0]).problems == ()
    assert (tree / "a").read_text() == "work"


def test_what_is_written_after_a_crash_in_the_switch_stays(
    empty: InPlaceWorld, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "undo", lambda *_: ())  # the process is gone

    def stop() -> None:
        raise CrashPoint

    with pytest.raises(CrashPoint):
        empty.restore(tree, calls=Acts(stop))
    (tree / "a").write_text("work")
    (place,) = tree.parent.glob(".backstay-restore-*")
    done = resume_in_place(place)
    assert (done.did, [problem.path for problem in done.problems]) == ("finished", [os.fsencode(tree / "a")])
    assert aside(tree) == {"a.backstay-old": "work"}


def test_a_stop_at_any_call_loses_nothing_that_was_written(
    empty: InPlaceWorld, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "undo", lambda *_: ())
    options, ended, at = replace(OVERWRITE, delete=False), False, 0
    written: list[int] = []
    while not ended:
        at += 1
        written.clear()
        write(tree / "a", "changed")
        (tree / "a.backstay-old").unlink(missing_ok=True)
        with suppress(CrashPoint):
            empty.restore(tree, options, Acts(lambda: written.append((tree / "a").write_text("work")), at=at))
            ended = True
        for place in tree.parent.glob(".backstay-restore-*"):
            resume_in_place(place)
        assert aside(tree) == ({"a.backstay-old": "work"} if written else {}), at
    assert at > 10


def test_what_is_left_of_an_old_directory_after_a_stop_goes(
    empty: InPlaceWorld, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "undo", lambda *_: ())
    write(tree / "strange dir/second", "old")

    def stop() -> None:
        raise CrashPoint

    with pytest.raises(CrashPoint):
        empty.restore(tree, calls=Acts(stop, CLEARING))
    (place,) = tree.parent.glob(".backstay-restore-*")
    (place / "items/strange dir/second").unlink()
    assert resume_in_place(place).problems == ()
    assert (aside(tree), list(tree.parent.iterdir())) == ({}, [tree])
