"""The rows of jobs, as those who run them write them.

Who runs a job holds a tenure of its row: the worker's name and the number of the attempt. Each write names it, so that
a process that slept, was taken for dead and woke up again cannot write into the row of a job that another has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Update, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job, JobLine, JobStatus
from backstay.core.clock import Clock

ACTIVE: Final[tuple[JobStatus, ...]] = ("queued", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """Who may write a row; it ends when the job ends, is given back, or another begins it."""

    job_id: str
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a job's log; `level` is info, warning or error."""

    time: datetime
    level: str
    message: str


class JobRows:
    """Writes of those who run jobs. All raise CatalogUnavailable."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock

    def begin(self, job_id: str, worker: str) -> tuple[Tenure, Job] | None:
        """Take a row that waits, or that somebody had begun; None if it has ended, or there is none."""
        now = self._clock.now()
        with self._catalog.session() as session:
            job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
            if job is None or job.status not in ACTIVE:
                return None
            job.status, job.worker, job.attempts = "running", worker, job.attempts + 1
            job.started_at = job.started_at or now
            session.flush()
            tenure = Tenure(job_id=job_id, worker=worker, attempt=job.attempts)
        return tenure, job

    def note(self, tenure: Tenure, progress: Document | None, lines: Sequence[Line]) -> bool | None:
        """Add to what is known of a job; whether its end was asked for, None if somebody else has it."""
        with self._catalog.session() as session:
            change = (
                _of(tenure).values(progress=progress) if progress is not None else _of(tenure).values(status="running")
            )
            asked = session.execute(change.returning(Job.cancel_asked)).scalar()
            if asked is None:
                return None
            _add(session, tenure, lines)
            return bool(asked)

    def end(
        self,
        tenure: Tenure,
        status: JobStatus,
        *,
        lines: Sequence[Line] = (),
        progress: Document | None = None,
        result: Document | None = None,
        error: Document | None = None,
        backup_id: str | None = None,
    ) -> bool:
        """The end of a job; False if it was not ours any more, and nothing was written."""
        values: dict[str, Any] = {"status": status, "finished_at": self._clock.now()}
        values |= {"result": result, "error": error}
        values |= {} if progress is None else {"progress": progress}
        values |= {} if backup_id is None else {"backup_id": backup_id}
        with self._catalog.session() as session:
            if not changed(session, _of(tenure).values(**values)):
                return False
            _add(session, tenure, lines)
            return True

    def release(self, tenure: Tenure, *, lines: Sequence[Line] = (), counts: bool) -> bool:
        """Let the job wait again; an attempt that does not count was ended for no fault of the job's."""
        values: dict[str, Any] = {"status": "queued", "worker": None}
        values |= {} if counts else {"attempts": Job.attempts - 1}
        with self._catalog.session() as session:
            if not changed(session, _of(tenure).values(**values)):
                return False
            _add(session, tenure, lines)
            return True


def changed(session: Session, statement: Update) -> bool:
    """Whether a change found its row."""
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount > 0


def _of(tenure: Tenure) -> Update:
    return (
        update(Job)
        .where(Job.id == tenure.job_id, Job.status == "running")
        .where(Job.worker == tenure.worker, Job.attempts == tenure.attempt)
        .execution_options(synchronize_session=False)
    )


def _add(session: Session, tenure: Tenure, lines: Sequence[Line]) -> None:
    session.add_all(
        JobLine(job_id=tenure.job_id, time=line.time, level=line.level, message=line.message) for line in lines
    )
