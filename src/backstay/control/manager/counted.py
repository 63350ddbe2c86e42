"""A repository whose requests to its stores are counted when it is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backstay.catalog.database import Catalog
from backstay.control.manager.setup import Opening
from backstay.control.metrics.requests import count_requests
from backstay.repository.repository import Repository
from backstay.storage.assembly import meters


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedOpening:
    """Opens as `inner` does. What a crash leaves uncounted stays so: counters are for trends."""

    inner: Opening
    catalog: Callable[[], Catalog]

    @contextmanager
    def open(self, *, index: bool = True, grows: bool = False) -> Iterator[Repository]:
        with self.inner.open(index=index, grows=grows) as repository:
            try:
                yield repository
            finally:
                self._count(repository)

    def prepare(self) -> None:
        self.inner.prepare()

    def _count(self, repository: Repository) -> None:
        if any(figure.calls for meter in meters(repository.backend).values() for figure in meter.snapshot().values()):
            with self.catalog().session() as session:
                count_requests(session, repository.backend)
