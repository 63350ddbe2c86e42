"""Who runs jobs: processes say every few seconds that they live, and others notice when one no longer does.

No two clocks are compared. `lease_until` is written by the worker's clock, for people to see; whoever watches looks
only at whether it changes, and counts the time by its own clock that never jumps. A watcher that was itself asleep, or
could not read, begins to count anew: it must not take its own absence for that of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models.jobs import Worker
from backstay.control.jobs.rows import changed
from backstay.core.clock import Clock

LEASE_S: Final = 15.0  # of silence, after which a worker counts as gone
BEAT_S: Final = 3.0


class Workers:
    """The table of workers. All methods raise CatalogUnavailable."""

    def __init__(self, catalog: Catalog, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._catalog, self._clock, self.lease_s = catalog, clock, lease_s
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._looked: float | None = None

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
        found = self.all()
        now = self._clock.monotonic()
        if self._looked is None or now - self._looked > self.lease_s / 2:
            self._seen = {}
        self._looked = now
        before = self._seen
        self._seen = {one.id: _since(before.get(one.id), one.lease_until, now) for one in found}
        return tuple(worker for worker, (_, since) in self._seen.items() if now - since > self.lease_s)


def _since(before: tuple[datetime, float] | None, lease_until: datetime, now: float) -> tuple[datetime, float]:
    """Since when we have seen this lease."""
    return before if before is not None and before[0] == lease_until else (lease_until, now)
