"""What counts as a difference between entries of snapshots."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from backstay.errors import CorruptedBackup
from backstay.operations.snapshots import look
from backstay.repository.nodes import Content, Node
from tests.crash.small_world import World

FILE = Node(b"f", stat.S_IFREG | 0o644, 0, 0, "", "", 8, 1, content=Content(0, b"1" * 32), sha256=b"s" * 32)
DIRECTORY = Node(b"d", stat.S_IFDIR | 0o755, 0, 0, "", "", 0, 1, content=Content(0, b"1" * 32))
OTHER = Content(0, b"2" * 32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (replace(FILE, extents=((0, 4),)), replace(FILE, extents=((4, 4),))),
        (FILE, replace(FILE, extents=((0, 4),))),
        (replace(FILE, sha256=None), replace(FILE, sha256=None, content=OTHER)),
        (FILE, replace(FILE, sha256=b"t" * 32)),
    ],
)
def test_files_of_other_bytes_differ(one: Node, other: Node) -> None:
    assert look.held(one) != look.held(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FILE, replace(FILE, mtime_ns=2)),
        (FILE, replace(FILE, content=OTHER)),  # the same bytes, cut or patched in another way
        (DIRECTORY, replace(DIRECTORY, content=OTHER)),
    ],
)
def test_entries_that_hold_the_same_do_not_differ(one: Node, other: Node) -> None:
    assert look.held(one) == look.held(other)


def test_a_comparison_goes_down_so_far_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "repository")
    with world.create() as repository:
        for byte in (b"1", b"2"):
            world.backup(repository, {b"/a/b/c/f": byte})
        old, new = repository.snapshots.live()
        assert [found.path for found in look.diff(repository, old, new)] == [b"/a/b/c/f"]
        monkeypatch.setattr(look, "MAX_DEPTH", 2)
        with pytest.raises(CorruptedBackup, match="too deeply"):
            list(look.diff(repository, old, new))
