"""Directories that go, come back or become something else between being listed and being captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.sources.filesystem import OpenDirectory
from backstay.sources.source import Capture, Stat
from tests.operations.watched.world import World


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("moving/below", "staying"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("as it was")
    return root


@pytest.fixture(params=[False, True], ids=["first", "later"])
def world(root: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with World([root]) as world:
        if request.param:
            world.snapshot()
            (root / "moving").chmod(0o700)
        yield world


def stays_away(root: Path) -> None:
    del root


def comes_back(root: Path) -> None:
    (root.parent / "away").rename(root / "moving")


def comes_back_changed(root: Path) -> None:
    (root.parent / "away/below/file").write_text("otherwise")
    comes_back(root)


def becomes_a_file(root: Path) -> None:
    (root / "moving").write_text("a file")


@pytest.mark.parametrize("afterwards", [stays_away, comes_back, comes_back_changed, becomes_a_file])
def test_a_directory_that_cannot_be_captured_is_left_out_and_tried_again(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch, afterwards: Callable[[Path], None]
) -> None:
    captured = OpenDirectory.capture

    def capture(self: OpenDirectory, entry: Stat, *, small: int) -> Capture:
        if entry[0] != b"moving":
            return captured(self, entry, small=small)
        (root / "moving").rename(root.parent / "away")
        try:
            return captured(self, entry, small=small)
        finally:
            afterwards(root)

    with monkeypatch.context() as patch:
        patch.setattr(OpenDirectory, "capture", capture)
        done = world.snapshot()
    assert [problem.path for problem in done.errors] == [bytes(root / "moving")]
    assert (done.files, done.dirs) == (1, 2 + len(root.parents))
    assert [warning.partition(": ")[0] for warning in world.warnings] == [str(root / "moving")]
    world.snapshot()
    assert world.shown() == world.fresh()
