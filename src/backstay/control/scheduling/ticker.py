"""Makes jobs of schedules whose time has come. Any number of processes may do so at once.

Crash order: which times run is decided in one transaction, which moves the schedule on and notes the times as claimed;
then the jobs are made, each with an id that follows from schedule and time; then the claim is taken away. A crash after
the first step leaves a claim, for which any process makes the jobs later. Who makes one twice makes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditLog
from backstay.catalog.models import Job, ScheduleRecord
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import FINISHED, JobKind
from backstay.control.scheduling.configuration import ConfigurationMarks
from backstay.control.scheduling.deciding import Decision, LastJob, decide
from backstay.control.scheduling.kinds import MARK, ON_CHANGE
from backstay.control.scheduling.schedules import NOTHING_TO_DO, Schedules
from backstay.control.scheduling.timing import settle
from backstay.core.clock import Clock
from backstay.errors import BackstayError, CatalogUnavailable

_AT_ONCE: Final = 200  # schedules in one transaction
_JUMP: Final = timedelta(seconds=30)  # by which a clock may be set without being noticed
_LEFT_BEHIND_S: Final = 60.0  # how often claims of processes that are gone are looked for
_RETRY: Final = timedelta(minutes=10)  # after a backup of a changed configuration failed


class MakesJobs(Protocol):
    """What the ticker needs of jobs: a job with an id that is known already is the one that there is."""

    def create(
        self,
        kind: JobKind,
        arguments: Document,
        *,
        actor: str,
        policy: str | None = None,
        scope: str = "/",
        job_id: str | None = None,
        schedule_id: str | None = None,
        scheduled_for: datetime | None = None,
    ) -> Any:  # noqa: ANN401 - the job
        ...


class Decides(Protocol):
    """What a schedule that is due does."""

    def __call__(self, schedule: ScheduleRecord, now: datetime, *, last: LastJob | None) -> Decision: ...


class OnMissed(Protocol):
    """Is told of a time that did not run, in the transaction that decides so."""

    def __call__(self, session: Session, schedule: ScheduleRecord, why: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Ticked:
    """What a tick did: the jobs that it made, and what did not run, by the ids of schedules."""

    jobs: list[str] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)
    jumped_s: float = 0.0


class Ticker:
    """Call `tick` every few seconds, and `watch` on hosts that have the files of policies; neither waits for a job."""

    def __init__(
        self,
        schedules: Schedules,
        jobs: MakesJobs,
        clock: Clock,
        *,
        on_missed: OnMissed | None = None,
        marks: ConfigurationMarks | None = None,
    ) -> None:
        self._schedules = schedules
        self._catalog, self._jobs, self._clock = schedules.catalog, jobs, clock
        self._audit = AuditLog(schedules.catalog, clock)
        self._on_missed, self._marks = on_missed, marks
        self._seen: tuple[datetime, float] | None = None
        self._cleared_at: float | None = None

    def tick(self) -> Ticked:
        """Make jobs for all that is due. Raises CatalogUnavailable; the next tick goes on from there."""
        ticked = Ticked(jumped_s=self._look_at_clock())
        self._take_up(ticked)
        while self._some(ticked, ScheduleRecord.type != ON_CHANGE, decide):
            pass
        return ticked

    def watch(self) -> Ticked:
        """Make jobs for configurations that have changed. Raises CatalogUnavailable."""
        ticked = Ticked()
        if self._marks is None:
            return ticked
        with self._catalog.reading() as session:
            due = session.scalars(_due(self._clock.now(), ScheduleRecord.type == ON_CHANGE)).all()
        # Outside of the transaction: a look takes as long as disks do.
        found = {schedule.id: _look(self._marks, schedule) for schedule in due}
        while self._some(ticked, ScheduleRecord.id.in_(found), _IfChanged(found)):
            pass
        return ticked

    def close(self) -> None:
        """Watch no files any more."""
        if self._marks is not None:
            self._marks.close()

    def _some(self, ticked: Ticked, which: ColumnElement[bool], deciding: Decides) -> bool:
        """Decide and carry out what is due of some schedules; whether there may be more."""
        now = self._clock.now()

        def work(session: Session) -> tuple[bool, list[ScheduleRecord], dict[str, str]]:
            rows = session.scalars(_due(now, which).limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
            last = _last_jobs(session, rows)
            missed: dict[str, str] = {}
            claimed = []
            for row in rows:
                decision, told = deciding(row, now, last=last.get(row.id)), row.last_missed
                if decision.times:
                    decision = self._with_work(row, decision)
                decision.apply(row, now)
                if decision.missed not in (None, told):  # what stays as it is, is told once
                    missed[row.id] = decision.missed
                    self._tell(session, row, decision.missed)
                if decision.times:
                    claimed.append(row)
            return len(rows) == _AT_ONCE, claimed, missed

        more, claimed, missed = self._catalog.transact(work)
        ticked.missed |= missed
        self._make(ticked, claimed)
        return more

    def _with_work(self, row: ScheduleRecord, decision: Decision) -> Decision:
        """The same, if there is anything to do. Once there is again, the next refusal is told anew."""
        if (why := self._schedules.refusal(row)) is not None:
            return decision.without_times(why)
        if (row.last_missed or "").startswith(NOTHING_TO_DO):
            row.last_missed = None
        return decision

    def _tell(self, session: Session, schedule: ScheduleRecord, why: str) -> None:
        self._audit.record(
            session,
            actor=f"schedule:{schedule.name}",
            action="schedule.missed",
            object=f"/policy/{schedule.policy}" if schedule.policy else "/repository",
            outcome="error",
            reason=why,
            details={"schedule": schedule.id, "type": schedule.type},
        )
        if self._on_missed is not None:
            self._on_missed(session, schedule, why)

    # -- jobs

    def _make(self, ticked: Ticked, claimed: Iterable[ScheduleRecord]) -> None:
        """Make the jobs that are claimed, and take the claims away."""
        done: dict[str, tuple[list[str], str | None, str | None]] = {}
        for row in claimed:
            made, failed = None, None
            for text in row.claimed or ():
                try:
                    made = self._one(row, datetime.fromisoformat(text))
                    ticked.jobs.append(made)
                except CatalogUnavailable:
                    raise
                except BackstayError as error:  # one that cannot be made now will not be made later either
                    failed = str(error)
            done[row.id] = (list(row.claimed or ()), made, failed)
        if not done:
            return

        def work(session: Session) -> None:
            rows = session.scalars(
                select(ScheduleRecord).where(ScheduleRecord.id.in_(done)).order_by(ScheduleRecord.id).with_for_update()
            )
            for row in rows:
                times, made, failed = done[row.id]
                row.claimed = [text for text in row.claimed or () if text not in times] or None
                row.last_job_id = made or row.last_job_id
                row.last_missed = failed or row.last_missed

        self._catalog.transact(work)

    def _one(self, row: ScheduleRecord, time: datetime) -> str:
        job = self._schedules.job_of(row, time)
        self._jobs.create(
            job.kind,
            job.arguments,
            actor=f"schedule:{row.name}"[:255],
            policy=job.policy,
            scope=job.scope,
            job_id=job.id,
            schedule_id=row.id,
            scheduled_for=time,
        )
        return job.id

    def _take_up(self, ticked: Ticked) -> None:
        """Make the jobs of claims that a process left behind."""
        now = self._clock.monotonic()
        if self._cleared_at is not None and now - self._cleared_at < _LEFT_BEHIND_S:
            return
        self._cleared_at = now
        with self._catalog.reading() as session:
            left = session.scalars(select(ScheduleRecord).where(ScheduleRecord.claimed.is_not(None))).all()
        self._make(ticked, left)

    # -- clocks

    def _look_at_clock(self) -> float:
        """By how many seconds the clock was set since the last tick; a first tick knows nothing and looks at all."""
        now, passed = self._clock.now(), self._clock.monotonic()
        before, self._seen = self._seen, (now, passed)
        jumped = timedelta(0) if before is None else (now - before[0]) - timedelta(seconds=passed - before[1])
        if before is not None and jumped > -_JUMP:
            return jumped.total_seconds() if jumped > _JUMP else 0.0  # forward: what was passed over is due now
        self._catalog.transact(lambda session: self._settle(session, now))
        return jumped.total_seconds()

    @staticmethod
    def _settle(session: Session, now: datetime) -> int:
        """Let nothing wait for a time that a wrong clock gave it."""
        rows = session.scalars(select(ScheduleRecord).where(ScheduleRecord.next_run_at > now))
        return sum(settle(row, now) for row in rows)


@dataclass(frozen=True, slots=True)
class _IfChanged:
    """Decides as for others, if what is watched has another mark than at the last time."""

    found: Mapping[str, str | BackstayError]

    def __call__(self, schedule: ScheduleRecord, now: datetime, *, last: LastJob | None) -> Decision:
        decision, mark = decide(schedule, now, last=last), self.found[schedule.id]
        if isinstance(mark, BackstayError):
            return decision.without_times(str(mark))
        if not decision.times:  # the next look, in a minute, comes early enough
            return decision.without_times(None)
        if mark == schedule.options.get(MARK) and not _is_to_be_repeated(schedule, now, last):
            return decision.without_times(None)
        schedule.options = {**schedule.options, MARK: mark}
        return replace(decision, missed=None)


def _is_to_be_repeated(schedule: ScheduleRecord, now: datetime, last: LastJob | None) -> bool:
    """Whether what was backed up last failed, and enough time has passed to try it again."""
    failed = last is not None and last.status in ("failed", "cancelled")
    return failed and schedule.last_run_at is not None and now - schedule.last_run_at >= _RETRY


def _look(marks: ConfigurationMarks, schedule: ScheduleRecord) -> str | BackstayError:
    try:
        return marks.mark(schedule)
    except BackstayError as error:
        return error


def _due(now: datetime, which: ColumnElement[bool]) -> Select[ScheduleRecord]:
    return (
        select(ScheduleRecord)
        .where(ScheduleRecord.enabled, ScheduleRecord.next_run_at <= now, which)
        .order_by(ScheduleRecord.next_run_at, ScheduleRecord.id)
    )


def _last_jobs(session: Session, rows: Sequence[ScheduleRecord]) -> dict[str, LastJob]:
    """The last job of each schedule; one that has not ended before all others."""
    if not rows:
        return {}
    query = select(Job.schedule_id, Job.status).where(
        or_(
            Job.id.in_([row.last_job_id for row in rows if row.last_job_id is not None]),
            and_(Job.schedule_id.in_([row.id for row in rows]), Job.status.not_in(FINISHED)),
        )
    )
    found: dict[str, LastJob] = {}
    for schedule, status in session.execute(query):
        if schedule is not None and (schedule not in found or status not in FINISHED):
            found[schedule] = LastJob(status=status)
    return found
