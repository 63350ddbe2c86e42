"""A tree of some directories, and a watch of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations.watched.world import World


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for number in range(30):
        (root / f"d{number:02}" / "below" / "deep").mkdir(parents=True)
        (root / f"d{number:02}" / "below" / "file").write_text("as it was")
    return root


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    with World([root]) as world:
        world.snapshot()
        yield world
