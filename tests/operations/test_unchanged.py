"""Whether a backup found what it was asked for as it was, whatever happened around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.trees import listings
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET
from tests.sources.filesystem.reading import LateClock


class World:
    def __init__(self, root: Path, repository: Repository) -> None:
        self.root, self.repository = root, repository
        self.paths = [root / "many" / f"f{number}" for number in range(50)] + [root / "lone/below", root / "gone"]
        for path in self.paths[:-1]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)

    def skips(self) -> bool:
        """Whether another backup makes no snapshot."""
        source = FilesystemSource([bytes(path) for path in self.paths], filters=Filters([]), clock=LateClock())
        options = BackupOptions(host="host", name="named", skip_unchanged=True)
        return run_backup(self.repository, source, options).snapshot is None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        world = World(tmp_path / "tree", repository)
        assert not world.skips()
        yield world


def touched_above(root: Path) -> None:
    (root / "many/new").touch()
    (root / "new").mkdir()


@pytest.mark.parametrize("change", [lambda _: None, touched_above])
def test_what_changes_beside_the_paths_makes_no_snapshot(world: World, change: Callable[[Path], None]) -> None:
    change(world.root)
    assert world.skips()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "many/f49").write_text("other"),
        lambda root: (root / "many/f0").unlink(),
        lambda root: (root / "lone/below").chmod(0o600),
        lambda root: (root / "lone").rename(root / "elsewhere"),
        lambda root: (root / "gone").touch(),
    ],
)
def test_what_changes_of_the_paths_makes_a_snapshot(world: World, change: Callable[[Path], None]) -> None:
    change(world.root)
    assert not world.skips()
    assert world.skips()


def test_paths_in_one_directory_do_not_each_read_its_listing(world: World) -> None:
    touched_above(world.root)
    decoded = 0
    decode = listings.decode_node

    def counting(body: bytes) -> Node:
        nonlocal decoded
        decoded += 1
        return decode(body)

    with patch.object(listings, "decode_node", counting):
        assert world.skips()
    assert decoded < 10 * len(world.paths)
