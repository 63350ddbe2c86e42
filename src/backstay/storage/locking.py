"""The stores of a repository that lock what they keep, and what keeps its objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backstay.core.pipeline import Workers
from backstay.errors import ObjectNotFound, TierNotAttached
from backstay.storage.backend import StorageBackend
from backstay.storage.retention import LockState, Retention
from backstay.storage.tiered import Tiered

AT_ONCE: Final = 16  # requests at a time, each for one object
UNDER_WAY: Final = 256


@dataclass(frozen=True, slots=True)
class LockingPlace:
    """One store that locks what must stay."""

    store: StorageBackend
    retention: Retention

    @property
    def url(self) -> str:
        return self.store.url


def locking_places(backend: StorageBackend) -> list[LockingPlace]:
    """The copies and the cold tier behind a backend, as far as they have locks.

    Raises TierNotAttached for a cold tier with locks that is away, and for no other.
    """
    stores = _hot_stores(backend)
    if isinstance(backend, Tiered) and backend.cold.has_locks():
        stores.append(backend.cold.open())
    return _with_locks(stores)


def kept_by_locks(backend: StorageBackend, names: Iterable[str], now: datetime) -> dict[str, LockState]:
    """Those of the objects that some store will keep although they are deleted, and what keeps them.

    Nothing is known of a cold tier that is away.
    """
    stores = _hot_stores(backend)
    if isinstance(backend, Tiered) and backend.cold.has_locks():
        with suppress(TierNotAttached):
            stores.append(backend.cold.open())
    places, wanted = _with_locks(stores), sorted(names)
    return {name: state for place in places for name, state in lock_states(place.retention, wanted) if state.keeps(now)}


def lock_states(retention: Retention, names: Sequence[str]) -> Iterator[tuple[str, LockState]]:
    """What keeps each of the objects; those that are gone are left out."""

    def ask(name: str) -> LockState | None:
        try:
            return retention.state(name)
        except ObjectNotFound:
            return None

    with Workers(AT_ONCE, "locks") as workers:
        answers = workers.ordered(ask, names, weigh=lambda name: 1, limit=UNDER_WAY)  # noqa: ARG005
        for name, state in zip(names, answers, strict=True):
            if state is not None:
                yield name, state


def _hot_stores(backend: StorageBackend) -> list[StorageBackend]:
    return [copy.inner if isinstance(copy, Tiered) else copy for copy in backend.copies()]


def _with_locks(stores: Iterable[StorageBackend]) -> list[LockingPlace]:
    return [LockingPlace(store, locks) for store in stores if (locks := store.retention()) is not None]
