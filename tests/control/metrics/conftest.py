"""The catalogs and clocks of these tests."""

from __future__ import annotations

from tests.control.catalogs import clock, empty_catalog, new_catalog

__all__ = ["clock", "empty_catalog", "new_catalog"]
