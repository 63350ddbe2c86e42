"""Mend what a crash left between the rows of jobs and the engine, so that none waits or runs for ever.

Any process may sweep, and several at once: each change names what it was decided from. What looks wrong may be a write
that is under way; it is mended if it looks the same in the next sweep.

Crash order: the jobs of a worker that is gone are given to others before its own row goes; a crash between leaves the
row, and the next sweep does it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models.jobs import AGENTS, DIRECT, Job
from backstay.control.jobs.jobs import end_waiting, submit
from backstay.control.jobs.port import EngineState, JobEngine
from backstay.control.jobs.rows import ACTIVE, changed
from backstay.control.jobs.workers import Workers
from backstay.core.clock import Clock
from backstay.errors import JobLost
from backstay.errors.documents import problem_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What a sweep did, by ids."""

    workers: tuple[str, ...] = ()
    given_back: tuple[str, ...] = ()
    submitted: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


class Sweeper:
    """Sweeps again and again; it remembers between sweeps what had looked wrong."""

    def __init__(self, catalog: Catalog, engine: JobEngine, workers: Workers, clock: Clock) -> None:
        self._catalog, self._engine, self._workers, self._clock = catalog, engine, workers, clock
        self._doubts: dict[str, tuple[object, ...]] = {}
        self._strangers: frozenset[str] = frozenset()

    def sweep(self) -> Mended:
        """Raises CatalogUnavailable."""
        gone = self._gone()
        swept = self._engine.sweep(gone)
        for worker in gone:
            self._workers.leave(worker)
        submitted, ended = self._rows()
        return Mended(workers=gone, given_back=swept.jobs, submitted=submitted, ended=ended)

    def _gone(self) -> tuple[str, ...]:
        """Workers that are silent, and those that have jobs but no row, which a worker has from its first moment."""
        silent = set(self._workers.gone())
        known = {worker.id for worker in self._workers.all()} | {self._engine.worker}
        strangers = self._engine.holders() - known
        silent |= strangers & self._strangers
        self._strangers = frozenset(strangers)
        return tuple(sorted(silent - {self._engine.worker}))

    def _rows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        active = select(Job).where(Job.status.in_(ACTIVE), Job.queue.not_in((DIRECT, AGENTS)))
        with self._catalog.reading() as session:
            jobs = session.scalars(active.order_by(Job.created_at)).all()
        states = self._engine.states([job.id for job in jobs])
        doubts: dict[str, tuple[object, ...]] = {}
        submitted, ended = [], []
        for job in jobs:
            state = states[job.id]
            if _agree(job, state):
                continue
            face = (job.status, job.attempts, job.cancel_asked, state)
            if self._doubts.get(job.id) != face:
                doubts[job.id] = face
            elif self._mend(job, state):
                ended.append(job.id)
            else:
                submitted.append(job.id)
        self._doubts = doubts
        return tuple(submitted), tuple(ended)

    def _mend(self, job: Job, state: EngineState) -> bool:
        """Make a row and the engine agree; whether the job has ended by that."""
        if job.cancel_asked and job.status == "queued":
            self._engine.cancel(job.id)
            return end_waiting(self._catalog, self._clock, job.id)
        if state in ("waiting", "unknown"):  # given back, or the engine's database was lost
            self._set(job, status="queued", worker=None)
            submit(self._engine, job)
            return False
        if state == "cancelled":
            return self._set(job, status="cancelled", finished_at=self._clock.now())
        error = JobLost("the job ended without a word", cause="the engine has it as done, but nobody wrote its end")
        return self._set(
            job, status="failed", finished_at=self._clock.now(), error=problem_document(error) | {"job_id": job.id}
        )

    def _set(self, job: Job, **values: Any) -> bool:  # noqa: ANN401 - columns
        """Change a row that is still as it was read."""
        same = update(Job).where(Job.id == job.id, Job.status == job.status, Job.attempts == job.attempts)
        with self._catalog.session() as session:
            return changed(session, same.values(**values).execution_options(synchronize_session=False))


def _agree(job: Job, state: EngineState) -> bool:
    """Whether nothing is to be done about a job that has not ended."""
    if job.status == "queued":
        return state == "running" or (state == "waiting" and not job.cancel_asked)
    return state == "running"
