"""What follows from the end of a job: it is counted, told of, and an alert begins or ends. Once, whoever wrote the end.

Order: `settled_at` is set in the same transaction as the counters, the alert and the messages. A crash before leaves
the job unsettled, and the next sweep settles it; after it there is nothing left to do.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job, ScheduleRecord
from backstay.catalog.models.jobs import FINISHED
from backstay.control.metrics.failures import is_dry, open_failure
from backstay.control.metrics.jobs import count_job
from backstay.control.notifying.alerts import Alerts, alone
from backstay.control.notifying.conditions import Condition
from backstay.control.notifying.conditions.condition import told_length
from backstay.control.notifying.notices import Notice, NoticeKind
from backstay.control.notifying.notifier import Notifier
from backstay.core.clock import Clock

# What comes again: its failure is an alert that the next success ends. Others are told of and that is all.
AGAIN: Final = frozenset({"backup", "verification", "rehearsal", "prune", "gc", "copy"})
_SILENT: Final = frozenset({"notification"})
_AT_ONCE: Final = 200


class Settling:
    """Settles finished jobs. Any thread and any number of processes may."""

    def __init__(self, catalog: Catalog, clock: Clock, notifier: Notifier, alerts: Alerts) -> None:
        self._catalog, self._clock, self._notifier, self._alerts = catalog, clock, notifier, alerts

    def sweep(self) -> int:
        """Settle what nobody has settled yet, the oldest first; how many jobs. Raises CatalogUnavailable."""
        with self._catalog.reading() as session:
            ids = list(
                session.scalars(
                    select(Job.id)
                    .where(Job.settled_at.is_(None), Job.finished_at.is_not(None))  # as the index has them
                    .order_by(Job.finished_at)
                    .limit(_AT_ONCE)
                )
            )
        return sum(self._catalog.transact(partial(self._settle, job_id=job_id)) for job_id in ids)

    def settle(self, session: Session, job_id: str) -> bool:
        """Settle one in the caller's transaction, which may be the one that ends it; False if that was done before."""
        alone(session)  # before any row is locked, so that two of these never wait for each other
        ended = Job.status.in_(FINISHED)
        job = session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.settled_at.is_(None), ended)
            .values(settled_at=self._clock.now())
            .returning(Job)
            .execution_options(populate_existing=True)
        )
        if job is None:
            return False
        count_job(session, job)
        self._tell(session, job)
        return True

    def _settle(self, session: Session, *, job_id: str) -> bool:
        return self.settle(session, job_id)

    def _tell(self, session: Session, job: Job) -> None:
        if job.kind in _SILENT or job.status == "cancelled" or is_dry(job):
            return
        failure = open_failure(session, job.kind, job.policy) if job.kind in AGAIN else None
        if job.status == "succeeded":
            # A sign of life says that all is well.
            but = frozenset[str]() if failure is None else self._notifier.targets.pings(session)
            self._notifier.notice(session, _success(session, job), but=but)
        if job.kind not in AGAIN:
            if job.status == "failed":
                self._notifier.notice(session, _failure_notice(session, job))
        elif failure is None:
            self._alerts.end(session, _failure(session, job).fingerprint)
        else:
            self._alerts.begin(session, _failure(session, failure))


def _what(job: Job) -> str:
    return f"{job.kind} of {job.policy}" if job.policy else job.kind


def _kind(job: Job, end: str) -> NoticeKind:
    kinds: dict[tuple[bool, str], NoticeKind] = {
        (True, "succeeded"): "backup_succeeded",
        (True, "failed"): "backup_failed",
        (False, "succeeded"): "job_succeeded",
        (False, "failed"): "job_failed",
    }
    return kinds[job.kind == "backup", end]


def _success(session: Session, job: Job) -> Notice:
    took = ""
    if job.started_at is not None and job.finished_at is not None:
        took = f"It took {told_length(job.finished_at - job.started_at)}."
    return Notice(
        severity="info",
        kind=_kind(job, "succeeded"),
        subject=f"job {job.id}",
        title=f"{_what(job)} succeeded",
        body=took,
        policy=job.policy,
        schedule=_schedule(session, job),
    )


def _failure(session: Session, job: Job) -> Condition:
    error = job.error or {}
    schedule = _schedule(session, job)
    return Condition(
        kind=_kind(job, "failed"),
        subject=_what(job),
        severity="error",
        title=f"{_what(job)} failed: {error.get('title', 'no reason was told')}",
        ended=f"{_what(job)} succeeded again",
        cause=error.get("cause") or error.get("detail") or "",
        solution=error.get("solution") or "look at the log of the job",
        policy=job.policy,
        details={"job": job.id, **({"schedule": schedule} if schedule else {})},
    )


def _failure_notice(session: Session, job: Job) -> Notice:
    failed = _failure(session, job)
    return Notice(
        severity="error",
        kind=failed.kind,
        subject=f"job {job.id}",
        title=failed.title,
        cause=failed.cause,
        solution=failed.solution,
        policy=job.policy,
        schedule=_schedule(session, job),
    )


def _schedule(session: Session, job: Job) -> str | None:
    """The name of the schedule that made a job run, if it is still there."""
    if job.schedule_id is None:
        return None
    return session.scalar(select(ScheduleRecord.name).where(ScheduleRecord.id == job.schedule_id))
