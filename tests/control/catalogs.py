"""Empty catalogs. That on PostgreSQL is one for all tests of a process: databases are slow to remove."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from backstay.catalog.database import Catalog
from backstay.catalog.models import Base
from tests.catalogs import catalog_server, clock, postgresql_template, sqlite_template, url_of
from tests.postgres.servers import Server

__all__ = [
    "catalog_server",
    "clock",
    "database",
    "kept_postgresql",
    "new_catalog",
    "postgresql_template",
    "sqlite_template",
]

_NUMBERS = count()
_TABLES = [table.name for table in Base.metadata.sorted_tables]


@pytest.fixture
def database() -> str:
    """The kind of database; modules that try both have a fixture of this name."""
    return "sqlite"


@pytest.fixture(scope="session")
def kept_postgresql(catalog_server: Server, postgresql_template: str) -> Iterator[Catalog]:
    name = f"kept_{next(_NUMBERS)}"  # each conftest that has this fixture makes one
    catalog_server.sql(f"create database {name} template {postgresql_template}")
    with Catalog.open(url_of(catalog_server, name)) as catalog:
        yield catalog


@pytest.fixture
def new_catalog(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog without rows."""
    if database == "sqlite":
        file = tmp_path / "catalog.db"
        file.write_bytes(request.getfixturevalue("sqlite_template").read_bytes())
        with Catalog.open(f"sqlite:///{file}") as catalog:
            yield catalog
        return
    kept: Catalog = request.getfixturevalue("kept_postgresql")
    yield kept
    with kept.session() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # the audit log is guarded by triggers
        session.execute(text(f"TRUNCATE {', '.join(_TABLES)} CASCADE"))
