"""Fixtures of this directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.copies import make_source
from tests.operations.tiers.places import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(make_source(tmp_path / "source"))
