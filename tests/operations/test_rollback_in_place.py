"""The old state after a restore in place: it comes back, and what was written since stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.operations.restore.in_place_recovery import roll_back_in_place
from tests.operations.in_place_world import KEEP, InPlaceWorld, settle, write


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
