"""Figures of the service, for Prometheus and for people: what was counted, and what the catalog knows."""

from __future__ import annotations

from backstay.control.metrics.counters import count
from backstay.control.metrics.exposition import CONTENT_TYPE, exposition

__all__ = ["CONTENT_TYPE", "count", "exposition"]
