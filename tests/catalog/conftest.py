"""Catalogs of both databases."""

from __future__ import annotations

from tests.catalogs import (  # noqa: F401 - fixtures
    catalog,
    catalog_server,
    clock,
    new_url,
    postgresql_template,
    sqlite_catalog,
    sqlite_template,
)
