"""A store in memory that locks what must stay, as a bucket with Object Lock does."""

from __future__ import annotations

from datetime import datetime

from backstay.core.clock import Clock
from backstay.errors import ObjectNotFound
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.storage.retention import LockState, Retention, locked_until, must_stay


class LockedStorage(MemoryStorage):
    """What is deleted while it is locked is gone from listings and goes on taking room: `buried` has its name.

    `locks` says until when objects are locked, `holds` which are held; `asked` and `extended` are the names in calls.
    """

    def __init__(self, *, clock: Clock, days: int = 30, address: str = "locked") -> None:
        super().__init__(clock=clock)
        self.days, self._address = days, address
        self.locks: dict[str, datetime] = {}
        self.holds: set[str] = set()
        self.buried: list[str] = []
        self.asked: list[str] = []
        self.extended: list[str] = []

    @property
    def url(self) -> str:
        return f"memory:{self._address}"

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=overwrite)
        if must_stay(name):
            self.locks[name] = locked_until(self._clock.now(), self.days)

    def delete(self, name: str) -> None:
        if self.lock_state(name).keeps(self._clock.now()):
            self.buried.append(name)
        self.locks.pop(name, None)
        self.holds.discard(name)
        super().delete(name)

    def lock_state(self, name: str) -> LockState:
        """What keeps an object, without being noted as a call."""
        return LockState(until=self.locks.get(name), held=name in self.holds)

    def retention(self) -> Retention:
        return _Locks(self)


class _Locks(Retention):
    def __init__(self, store: LockedStorage) -> None:
        self._store = store

    @property
    def days(self) -> int:
        return self._store.days

    def extend(self, name: str, until: datetime) -> None:
        self._require(name)
        self._store.extended.append(name)
        self._store.locks[name] = max(until, self._store.locks.get(name, until))

    def hold(self, name: str, *, on: bool) -> None:
        self._require(name)
        (self._store.holds.add if on else self._store.holds.discard)(name)

    def state(self, name: str) -> LockState:
        self._require(name)
        self._store.asked.append(name)
        return self._store.lock_state(name)

    def _require(self, name: str) -> None:
        if not self._store.exists(name):
            raise ObjectNotFound(name)
