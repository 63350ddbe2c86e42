"""Which processes of agents there are: they are heard of when they ask for work and tell of it.

The newest of each agent stays in the table when it is gone, and says since when the agent is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import AgentProcess, User
from backstay.control.jobs.rows import changed
from backstay.control.jobs.silences import Silences
from backstay.core.clock import Clock

LEASE_S: Final = 60.0  # of silence, after which a process counts as gone: lines between hosts fail for moments
_NEWS: Final = timedelta(seconds=2)  # what was written so short ago is not written again


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A process of an agent that asks: `worker` is what rows of jobs call it."""

    agent: str
    user_id: str
    instance: str
    host: str
    version: str

    @property
    def worker(self) -> str:
        return f"agent:{self.agent}/{self.instance}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSeen:
    """When an agent was last heard of, and what it said of itself."""

    at: datetime
    host: str
    version: str


class AgentProcesses:
    """The table of them. All methods raise CatalogUnavailable."""

    def __init__(self, catalog: Catalog, clock: Clock, *, lease_s: float = LEASE_S) -> None:
        self._catalog, self._clock = catalog, clock
        self._silences = Silences(clock, lease_s)

    def beat(self, caller: Caller) -> None:
        """Note that a process lives."""
        now = self._clock.now()
        with self._catalog.session() as session:
            known = session.get(AgentProcess, caller.worker)
            if known is None:
                session.add(
                    AgentProcess(
                        worker=caller.worker,
                        user_id=caller.user_id,
                        host=caller.host,
                        version=caller.version,
                        started_at=now,
                        seen_at=now,
                    )
                )
            elif abs(now - known.seen_at) >= _NEWS:
                fresh = {"seen_at": now, "host": caller.host, "version": caller.version}
                changed(session, update(AgentProcess).where(AgentProcess.worker == caller.worker).values(**fresh))

    def all(self) -> Sequence[AgentProcess]:
        with self._catalog.reading() as session:
            return session.scalars(select(AgentProcess).order_by(AgentProcess.seen_at)).all()

    def gone(self) -> tuple[str, ...]:
        """Processes that were silent for the whole of a lease in which we looked all the time."""
        return self._silences.of({one.worker: one.seen_at for one in self.all()})

    def forget(self, workers: Iterable[str]) -> None:
        """Take processes that are gone out of the table, but for the newest of each agent."""
        newest = {one.user_id: one.worker for one in self.all()}
        if old := set(workers) - set(newest.values()):
            with self._catalog.session() as session:
                session.execute(delete(AgentProcess).where(AgentProcess.worker.in_(old)))


def last_seen(session: Session) -> dict[str, LastSeen]:
    """By the names of agents: when each that ever asked for work was last heard of."""
    query = select(AgentProcess, User.name).join(User, User.id == AgentProcess.user_id).order_by(AgentProcess.seen_at)
    return {
        name: LastSeen(at=process.seen_at, host=process.host, version=process.version)
        for process, name in session.execute(query)
    }
