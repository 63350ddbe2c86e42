"""A catalog of its own for each test: a copy of one whose tables were made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.testing.clock import FakeClock


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog without rows."""
    file = tmp_path_factory.mktemp("catalog") / "empty.db"
    with Catalog.open(f"sqlite:///{file}") as catalog:
        catalog.migrate()
    return file


@pytest.fixture
def new_catalog(empty_catalog: Path, tmp_path: Path) -> Iterator[Catalog]:
    file = tmp_path / "catalog.db"
    shutil.copyfile(empty_catalog, file)
    with Catalog.open(f"sqlite:///{file}") as catalog:
        yield catalog


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
