"""Stores that refuse to give up what they keep: up to a date that only moves further away, or while it is held."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

# By the first part of its name, what nobody ever deletes while it is needed. All else is what programs have to delete
# to get on: announcements, leases, claims of a quota, marks of mirrors, probes, and whatever tries out a store.
_STAYS: Final = frozenset(
    {"repo.json", "keys", "packs", "meta", "index", "snapshots", "drops", "holds", "tiers", "tier.json", "log"}
)


def must_stay(name: str) -> bool:
    """Whether an object is locked when it is written, where objects are locked."""
    return name.partition("/")[0] in _STAYS


def locked_until(now: datetime, days: int) -> datetime:
    """When a lock for so many days ends: with the last of them, so that all objects of a day end together."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days + 1)
