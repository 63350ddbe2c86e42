"""A catalog of its own for each test, a clock that stands still, and passwords that cost little."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from backstay.catalog.database import Catalog
from backstay.catalog.models import Base
from backstay.control.access.access import Access
from backstay.control.access.passwords import Passwords
from backstay.testing import FakeClock
from tests.control.catalogs import catalog_server, kept_postgresql, new_catalog, postgresql_template

__all__ = ["catalog_server", "kept_postgresql", "new_catalog", "postgresql_template"]

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with its tables: a copy for each test costs less than making them."""
    path = tmp_path_factory.mktemp("empty") / "catalog.db"
    with Catalog.open(f"sqlite:///{path}") as made:
        Base.metadata.create_all(made.engine)
    return path


@pytest.fixture
def catalog(tmp_path: Path, empty_catalog: Path) -> Iterator[Catalog]:
    shutil.copy(empty_catalog, tmp_path / "catalog.db")
    with Catalog.open(f"sqlite:///{tmp_path}/catalog.db") as made:
        yield made


@pytest.fixture
def access(catalog: Catalog, clock: FakeClock) -> Access:
    return Access(catalog, clock, passwords=Passwords(CHEAP))
