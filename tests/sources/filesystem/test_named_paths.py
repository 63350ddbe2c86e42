"""Which paths a source holds: those that were named, what leads to them, and what they mean to the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import InvalidRequest, NotFound
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from tests.sources.filesystem.reading import below, capture, descend, names, row, source, tree


def test_the_root_shows_only_what_leads_to_the_paths(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/1", "a/c/2", "a/d/3", "e")
    found = source(tmp_path / "a/b", tmp_path / "a/c")
    assert below(tmp_path, found) == ["a", "a/b", "a/b/1", "a/c", "a/c/2"]
    assert names(found.root()) == [os.fsencode(tmp_path.parts[1])]
    way = descend(found.root(), tmp_path)
    assert row(way, b"a")[5] == (tmp_path / "a").stat().st_ino
    assert way.capture(row(way, b"a"), small=0).node.mtime_ns == (tmp_path / "a").stat().st_mtime_ns


def test_nested_and_repeated_paths_collapse(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/1", "a/2")
    found = source(tmp_path / "a/b", tmp_path / "a", tmp_path / "a/b/../b/", tmp_path / "a")
    assert below(tmp_path, found) == ["a", "a/2", "a/b", "a/b/1"]
    assert list(found.paths) == [os.fsencode(tmp_path / "a/b"), os.fsencode(tmp_path / "a")]


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a/1")
    monkeypatch.chdir(tmp_path / "a")
    assert source(b".").paths == (os.fsencode(tmp_path / "a"),)
    assert source(b"//etc/../etc").paths == (b"/etc",)


def test_the_root_itself(tmp_path: Path) -> None:
    found = source(b"/")
    assert set(names(found.root())) == {os.fsencode(name) for name in os.listdir("/")}
    assert found.root().path == b"/"


def test_a_single_file_and_a_symlink_are_paths_too(tmp_path: Path) -> None:
    tree(tmp_path, "dir/1")
    (tmp_path / "link").symlink_to("dir")
    assert below(tmp_path, source(tmp_path / "dir/1", tmp_path / "link")) == ["dir", "dir/1", "link"]
    assert capture(tmp_path / "link").node.target == b"dir"


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("link", ["link"]),
        ("link/", ["real", "real/deep", "real/deep/1"]),
        ("link/.", ["real", "real/deep", "real/deep/1"]),
        ("link/deep/1", ["real", "real/deep", "real/deep/1"]),
        ("down/..", ["real", "real/deep", "real/deep/1"]),
        ("down/../deep/1", ["real", "real/deep", "real/deep/1"]),
        ("./link/../2", ["2"]),
    ],
)
def test_a_path_means_what_it_means_to_the_system(tmp_path: Path, asked: str, held: list[str]) -> None:
    tree(tmp_path, "real/deep/1", "2", "deep/1")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "down").symlink_to("real/deep")
    found = source(os.fsencode(f"{tmp_path}/{asked}"))
    assert below(tmp_path, found) == held
    assert not found.lacks_paths
    assert len(found.places) == 1


def test_paths_that_are_not_there_are_lacking(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    twice = [os.fsencode(tmp_path / "1"), os.fsencode(f"{tmp_path}/./1")]
    assert not source(*twice).lacks_paths
    assert source(*twice, tmp_path / "2").lacks_paths


def test_symlinks_on_the_way_are_resolved(tmp_path: Path) -> None:
    tree(tmp_path, "real/1")
    (tmp_path / "link").symlink_to("real")
    found = source(tmp_path / "link/1")
    assert below(tmp_path, found) == ["real", "real/1"]
    assert found.paths == (os.fsencode(tmp_path / "link/1"),)


def test_missing_paths(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    found = source(tmp_path / "1", tmp_path / "missing", tmp_path / "1/below")
    assert [problem.path for problem in found.problems] == [
        os.fsencode(tmp_path / "missing"),
        os.fsencode(tmp_path / "1/below"),
    ]
    assert below(tmp_path, found) == ["1"]
    with pytest.raises(NotFound, match="missing"):
        source(tmp_path / "missing")
    for nothing in ([], [b""], [b"a\0b"]):
        with pytest.raises(InvalidRequest):
            FilesystemSource(nothing, filters=Filters([]), clock=SystemClock())


def test_a_named_path_that_vanishes_is_a_problem(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    found = source(tmp_path / "1")
    (tmp_path / "1").unlink()
    assert below(tmp_path, found) == []
    assert [problem.path for problem in found.problems] == [os.fsencode(tmp_path / "1")]
