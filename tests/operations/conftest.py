"""A tree of all kinds of items that was backed up, to be restored in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.in_place_world import InPlaceWorld, backed_up


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    found = InPlaceWorld(tmp_path)
    backed_up(found.origin)
    found.snapshot()
    return found
