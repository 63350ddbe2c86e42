"""Directories that go, come back or become something else between being listed and being captured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backstay.repository.nodes import EMPTY
from backstay.repository.trees.listings import read_listing
from backstay.sources.filesystem import OpenDirectory
from backstay.sources.source import Capture, Stat
from tests.operations.watched.world import World
from tests.sources.filesystem.reading import LateClock


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


def exchange(root: Path) -> None:
    """Two directories of one place change their names."""
    (root / "public").rename(root / "aside")
    (root / "private").rename(root / "public")
    (root / "aside").rename(root / "private")


def seen(world: World) -> set[tuple[int, bytes]]:
    """Modes of the directories in the root, each with the name of the file in it."""
    root = world.shown()[0]
    assert root is not None
    read = world.repository.reader
    listed = [node for node in read_listing(root.content or EMPTY, read) if node.is_dir]
    found = [(node, held) for node in listed for held in read_listing(node.content or EMPTY, read)]
    return {(node.mode & 0o777, held.name) for node, held in found if not held.is_dir}


@pytest.mark.parametrize("moment", ["capture", "enter"])
@pytest.mark.parametrize("case", ["first", "later", "changed below"])
def test_no_directory_is_stored_with_the_mode_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, case: str
) -> None:
    root = tmp_path / "root"
    for name, mode in (("public", 0o755), ("private", 0o700)):
        (root / name / "way/below").mkdir(parents=True)
        (root / name / f"of {name}").touch()
        (root / name).chmod(mode)
    meant = {(0o700, b"of private"), (0o755, b"of public")}
    call = getattr(OpenDirectory, moment)
    exchanges = [exchange]

    def exchanged(self: OpenDirectory, entry: Stat, **more: Any) -> Any:
        if entry[0] in (b"private", b"public") and exchanges:
            exchanges.pop()(root)
        return call(self, entry, **more)

    with World([root], clock=LateClock()) as world:
        if case != "first":
            world.snapshot()
            if case == "later":
                world.journal.failed()  # everything is looked at
            for name in ("private", "public"):
                (root / name / "way/below/new").touch()
            if moment == "capture":
                for name in ("private", "public"):
                    os.utime(root / name)
        with monkeypatch.context() as patch:
            patch.setattr(OpenDirectory, moment, exchanged)
            world.snapshot()
        assert not exchanges
        assert seen(world) == meant
        world.snapshot()
        assert seen(world) == meant
        assert world.shown() == world.fresh()
