"""Who runs jobs: processes say every few seconds that they live, and others notice when one no longer does.

`lease_until` is written by the worker's clock, for people to see; whoever watches looks only at whether it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models.jobs import Worker
from backstay.control.jobs.rows import changed
from backstay.control.jobs.silences import Silences
from backstay.core.clock import Clock

LEASE_S: Final = 15.0  # of silence, after which a worker counts as gone
BEAT_S: Final = 3.0


class Workers:
    """The table of workers. All methods raise CatalogUnavailable."""

    def __init__(self, catalog: Catalog, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._catalog, self._clock, self.lease_s = catalog, clock, lease_s
        self._silences = Silences(clock, lease_s)

    def beat(self, worker: str, *, host: str, pid: int, queues: Sequence[str]) -> None:
        """Say that a worker lives. One that had been taken for gone is there again: its jobs are not."""
        now = self._clock.now()
        until = now + timedelta(seconds=self.lease_s)
        with self._catalog.session() as session:
            if changed(session, update(Worker).where(Worker.id == worker).values(lease_until=until)):
                return
            session.add(Worker(id=worker, host=host, pid=pid, queues=list(queues), started_at=now, lease_until=until))

    def leave(self, worker: str) -> None:
        """Say that a worker is gone; what it had must have been given to others before."""
        with self._catalog.session() as session:
            session.execute(delete(Worker).where(Worker.id == worker))

    def all(self) -> Sequence[Worker]:
        with self._catalog.reading() as session:
            return session.scalars(select(Worker).order_by(Worker.started_at)).all()

    def gone(self) -> tuple[str, ...]:
        """Workers that were silent for the whole of a lease in which we looked all the time."""
        return self._silences.of({one.id: one.lease_until for one in self.all()})
