"""An archive in memory: what is stored freezes at once, and thaws by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import ObjectFrozen, ObjectNotFound
from backstay.storage.archive import Archive, ThawState
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage

_DAY: Final = 86400.0


class GlacierStorage(MemoryStorage):
    """Data packs freeze; what else is stored stays readable. `takes_s` seconds after it was asked for, one is ready.

    `batches` records the names of each request, in order.
    """

    def __init__(self, name: str = "", *, clock: Clock, takes_s: float = 4 * 3600.0) -> None:
        super().__init__(name, clock=clock)
        self._now = clock
        self._takes_s = takes_s
        self._thaws: dict[str, tuple[float, float]] = {}  # name -> ready from, until
        self.batches: list[tuple[str, ...]] = []

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=overwrite)
        self._thaws.pop(name, None)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = super().retrieve(name, start=start, length=length)
        if self.state(name) in ("cold", "thawing"):
            raise ObjectFrozen(f"cannot read {name}", cause="it lies in an archive class of the store")
        return data

    def archive(self) -> Archive:
        return _Archive(self)

    def state(self, name: str) -> ThawState:
        """Where an object is on its way."""
        if not name.startswith("packs/"):
            return "hot"
        ready, until = self._thaws.get(name, (0.0, 0.0))
        now = self._now.monotonic()
        if now >= until:
            return "cold"
        return "thawing" if now < ready else "ready"

    def ask(self, names: Iterable[str], days: int) -> None:
        """One batch of requests; one that is under way keeps its time, one that is ready stays so for longer."""
        batch = tuple(names)
        self.batches.append(batch)
        now = self._now.monotonic()
        for name in batch:
            if not self.exists(name):
                raise ObjectNotFound(name)
            ready = self._thaws[name][0] if self.state(name) in ("thawing", "ready") else now + self._takes_s
            self._thaws[name] = (ready, max(ready, now) + days * _DAY)

    @property
    def takes_s(self) -> float:
        return self._takes_s

    def stored(self, name: str) -> bytes:
        """The bytes themselves, frozen or not."""
        return super().retrieve(name)


class _Archive(Archive):
    def __init__(self, store: GlacierStorage) -> None:
        self._store = store

    @property
    def usual_s(self) -> float:
        return self._store.takes_s

    def thaw(self, names: Iterable[str], days: int) -> None:
        self._store.ask(names, days)

    def thaw_state(self, name: str) -> ThawState:
        self._store.stat(name)
        return self._store.state(name)

    def holds(self, name: str, data: bytes) -> bool:
        return self._store.stored(name) == data
