"""Give back the jobs of agents' processes that are gone: the agent fetches them again when it returns.

Any process of the service may sweep, and several at once: each change names the worker that has the job.

Crash order: jobs are given back before the row of their process goes; a crash between leaves the row, and the next
sweep does it again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models import AgentProcess, Job, JobLine
from backstay.catalog.models.jobs import AGENTS
from backstay.control.agents.processes import AgentProcesses
from backstay.control.jobs.jobs import end_waiting
from backstay.control.jobs.rows import changed
from backstay.core.clock import Clock

_SILENT: Final = "the agent was not heard of any more: the job waits until it is back"


class AgentSweeper:
    """Sweeps again and again; it remembers who was heard of, and which jobs had nobody."""

    def __init__(self, catalog: Catalog, clock: Clock, processes: AgentProcesses) -> None:
        self._catalog, self._clock, self._processes = catalog, clock, processes
        self._strangers: frozenset[str] = frozenset()

    def sweep(self) -> tuple[str, ...]:
        """The jobs that were given back. Raises CatalogUnavailable."""
        gone = self._processes.gone()
        given = self._give_back(self._held_by({*gone, *self._without_a_row()}))
        self._processes.forget(gone)
        return given

    def _without_a_row(self) -> Collection[str]:
        """Workers that have jobs and no row in two sweeps in a row: a process has one before its first job."""
        running = select(Job.worker).where(Job.queue == AGENTS, Job.status == "running").distinct()
        with self._catalog.reading() as session:
            known = set(session.scalars(select(AgentProcess.worker)))
            strangers = frozenset(worker for worker in session.scalars(running) if worker and worker not in known)
        twice, self._strangers = strangers & self._strangers, strangers
        return twice

    def _held_by(self, workers: Collection[str]) -> list[tuple[str, str]]:
        if not workers:
            return []
        held = select(Job.id, Job.worker).where(Job.queue == AGENTS, Job.status == "running", Job.worker.in_(workers))
        with self._catalog.reading() as session:
            return [(ident, worker or "") for ident, worker in session.execute(held)]

    def _give_back(self, held: Collection[tuple[str, str]]) -> tuple[str, ...]:
        given = []
        for ident, worker in held:
            same = update(Job).where(Job.id == ident, Job.status == "running", Job.worker == worker)
            with self._catalog.session() as session:
                if not changed(session, same.values(status="queued", worker=None)):
                    continue
                session.add(JobLine(job_id=ident, time=self._clock.now(), level="warning", message=_SILENT))
            end_waiting(self._catalog, self._clock, ident)  # if somebody asked for its end meanwhile
            given.append(ident)
        return tuple(given)
