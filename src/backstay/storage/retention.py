"""Stores that refuse to give up what they keep: up to a date that only moves further away, or while it is held."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_WAL_PART: Final = re.compile(r"wal/.*\.[0-9a-f]{8}-[0-9a-f]{8}")  # goes when its segment is stored whole

# What every snapshot needs, or a reader may need to understand it: small, and few beside the packs. A segment may name
# packs of any snapshot.
SHARED: Final = ("repo.json", "keys/", "index/", "drops/", "holds/", "tiers/", "attestations/", "graphs/")
# What nobody ever deletes while it is needed. All else is what programs have to delete to get on: announcements,
# leases, claims of a quota, marks of mirrors, probes, and whatever tries out a store.
_STAYS: Final = (*SHARED, "packs/", "meta/", "snapshots/", "tier.json", "wal/", "values/", "log/")


def must_stay(name: str) -> bool:
    """Whether an object is locked when it is written, where objects are locked."""
    return name.startswith(_STAYS) and not _WAL_PART.fullmatch(name)


def locked_until(now: datetime, days: int) -> datetime:
    """When a lock for so many days ends: with the last of them, so that all objects of a day end together."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days + 1)


def told_moment(found: datetime) -> datetime:
    """A time that a store has told, in UTC, which one without a zone is in. ValueError for what is no time there."""
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it lies before the first year or after the last") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """What keeps one object: a lock that ends at `until`, a hold that ends when it is taken off, both, or neither."""

    until: datetime | None = None
    held: bool = False

    def keeps(self, now: datetime) -> bool:
        """Whether the store would refuse to give the object up now."""
        return self.held or (self.until is not None and self.until > now)


class Retention(ABC):
    """What a store that locks objects can do besides locking them as they are written. Any thread may call it.

    All methods raise ObjectNotFound; InvalidRequest where the bucket knows no locks; StorageRefused without the right.
    """

    @property
    @abstractmethod
    def days(self) -> int:
        """For how many days an object is locked when it is written."""

    @abstractmethod
    def extend(self, name: str, until: datetime) -> None:
        """Lock an object until then at least; a lock that ends later stays as it is."""

    @abstractmethod
    def hold(self, name: str, *, on: bool) -> None:
        """Put a legal hold on an object, or take it off; one that is as it should be is fine."""

    @abstractmethod
    def state(self, name: str) -> LockState:
        """What keeps an object, as the store says it now."""

    def try_out(self, name: str) -> None:
        """Raise InvalidRequest if the bucket cannot lock.

        The object is one that nobody needs; it may go then, and is not locked for longer than a minute.
        """
        self.hold(name, on=True)
        self.hold(name, on=False)
