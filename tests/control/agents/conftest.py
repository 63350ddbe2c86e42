"""Empty catalogs."""

from __future__ import annotations

from tests.control.catalogs import (
    catalog_server,
    clock,
    database,
    kept_postgresql,
    new_catalog,
    postgresql_template,
    sqlite_template,
)

__all__ = [
    "catalog_server",
    "clock",
    "database",
    "kept_postgresql",
    "new_catalog",
    "postgresql_template",
    "sqlite_template",
]
