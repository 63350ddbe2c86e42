"""Jobs as people see them: asked for, looked at, cancelled.

Crash order: the row is there before the engine hears of the job, and a wish to cancel stands in the row before the
engine hears of it. A crash between leaves a row whose wish the sweeper passes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import AGENTS, DIRECT, FINISHED, Job, JobKind, JobLine
from backstay.catalog.pages import Page
from backstay.control.jobs.listing import LISTING
from backstay.control.jobs.listing import JobFilters as JobFilters
from backstay.control.jobs.port import JobEngine
from backstay.control.jobs.queues import QUEUE_OF, partition_of
from backstay.control.jobs.rows import changed
from backstay.core.clock import Clock
from backstay.core.ids import Random, is_ulid, new_ulid
from backstay.errors import CatalogUnavailable, JobConflict, NotFound

NOT_BEFORE: Final = "not_before"  # in the arguments: when a job may begin that has to wait
AgentOf: TypeAlias = Callable[[str], str | None]
_LOOK_S: Final = 0.25
_MOST_LINES: Final = 1000


def nobody(policy: str) -> None:
    """The agent of every policy, where there are none."""
    del policy


class Jobs:
    """All jobs. Each method is a transaction of its own, and raises CatalogUnavailable."""

    def __init__(
        self,
        catalog: Catalog,
        engine: JobEngine,
        clock: Clock,
        *,
        random: Random | None = None,
        agent_of: AgentOf = nobody,
    ) -> None:
        """`agent_of` names the agent that runs the backups of a policy, None for our own workers."""
        self._catalog, self._engine, self._clock = catalog, engine, clock
        self._random, self._agent_of = random, agent_of

    def create(
        self,
        kind: JobKind,
        arguments: Document,
        *,
        actor: str,
        queue: str | None = None,
        policy: str | None = None,
        scope: str = "/",
        priority: int = 0,
        partition: str | None = None,
        job_id: str | None = None,
        backup_id: str | None = None,
        schedule_id: str | None = None,
        scheduled_for: datetime | None = None,
        not_before: datetime | None = None,
        within: Callable[[Session], None] | None = None,
    ) -> Job:
        """Ask for a job. With a `job_id` that is known already, the job that it names.

        `within` is called in the transaction that makes the row, for what must be there with it. The row is what
        counts: if the engine cannot be reached just now, the job is passed to it later.
        """
        if not_before is not None:
            arguments = arguments | {NOT_BEFORE: not_before.isoformat()}
        agent = self._agent_of(policy) if kind == "backup" and policy is not None else None
        job = Job(
            id=job_id or self._new_id(),
            kind=kind,
            status="queued",
            queue=AGENTS if agent is not None else queue or QUEUE_OF[kind],
            agent=agent,
            priority=priority,
            policy=policy,
            scope=scope,
            actor=actor,
            arguments=arguments,
            backup_id=backup_id,
            schedule_id=schedule_id,
            scheduled_for=scheduled_for,
            created_at=self._clock.now(),
            attempts=0,
            cancel_asked=False,
        )
        try:
            with self._catalog.session() as session:
                known = session.get(Job, job.id)
                if known is None:
                    session.add(job)
                    session.flush()
                    if within is not None:
                        within(session)
        except IntegrityError:  # another process made it at the same moment
            return self.get(job.id)
        if known is not None:
            return known
        if agent is not None:  # which looks for it by itself
            return job
        try:
            submit(self._engine, job, partition=partition)
        except CatalogUnavailable:  # the sweeper does it as soon as the engine can be reached
            return job
        return job

    def _new_id(self) -> str:
        now_ns = self._clock.now_ns()
        return new_ulid(now_ns) if self._random is None else new_ulid(now_ns, self._random)

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        with self._catalog.reading() as session:
            job = session.get(Job, job_id) if is_ulid(job_id) else None
        if job is None:
            raise NotFound(f"there is no job {job_id}", cause="no row has this id", hint="the list of jobs shows them")
        return job

    def page(self, filters: JobFilters, limit: int | None = None, cursor: str | None = None) -> Page[Job]:
        """Records of jobs, the newest first. Raises InvalidRequest for a limit or a cursor that cannot be."""
        with self._catalog.looking() as connection:
            return LISTING.page(connection, filters, limit=limit, cursor=cursor)

    def cancel(self, job_id: str, actor: str, *, within: Callable[[Session], None] | None = None) -> Job:
        """Ask for the end of a job. One that waits has ended on return; one that runs ends at its next event.

        `within` is called in the transaction that writes the wish. Raises NotFound, JobConflict when it has ended
        already. Asking again changes nothing.
        """
        job = self.get(job_id)
        if job.status == "cancelled":
            return job
        if job.status in FINISHED:
            raise JobConflict(f"the job {job_id} has ended already", cause=f"it is {job.status}")
        if job.queue == DIRECT:
            raise JobConflict(
                f"the run {job_id} cannot be cancelled from here",
                cause="a command or a program runs it, and no worker",
                hint="stop that program: what it stored is used by its next run",
            )
        with self._catalog.session() as session:
            wish = update(Job).where(Job.id == job_id, Job.cancel_asked.is_(False), Job.status.not_in(FINISHED))
            if changed(session, wish.values(cancel_asked=True)):
                line = f"{actor} asked for its end"
                session.add(JobLine(job_id=job_id, time=self._clock.now(), level="info", message=line))
                if within is not None:
                    within(session)
        if job.queue == AGENTS:
            end_waiting(self._catalog, self._clock, job_id)
            return self.get(job_id)
        try:
            self._engine.cancel(job_id)
            if self._engine.state(job_id) != "running":
                end_waiting(self._catalog, self._clock, job_id)
        except CatalogUnavailable:  # the wish stands in the row, which whoever runs it reads
            return self.get(job_id)
        return self.get(job_id)

    def lines(self, job_id: str, *, after: int = 0, limit: int = _MOST_LINES) -> Sequence[JobLine]:
        """Lines of a job's log whose number is above `after`, in order. Raises NotFound."""
        self.get(job_id)
        asked = select(JobLine).where(JobLine.job_id == job_id, JobLine.id > after).order_by(JobLine.id).limit(limit)
        with self._catalog.reading() as session:
            return session.scalars(asked).all()

    def changes(self, job_id: str, timeout_s: float, *, quiet_s: float = 15.0) -> Iterator[Job | None]:
        """A job now and after each change, until it has ended or the time is up; None after each quiet while.

        Raises NotFound.
        """
        until = self._clock.monotonic() + timeout_s
        shown: tuple[object, ...] | None = None
        heard = self._clock.monotonic()
        while True:
            job = self.get(job_id)
            now = self._clock.monotonic()
            if (face := (job.status, job.progress, job.cancel_asked, job.attempts)) != shown:
                shown, heard = face, now
                yield job
            elif now - heard >= quiet_s:
                heard = now
                yield None
            if job.status in FINISHED or now >= until:
                return
            self._clock.sleep(_LOOK_S)


def submit(engine: JobEngine, job: Job, *, partition: str | None = None) -> None:
    """Pass a row to the engine, which takes each once. Raises CatalogUnavailable."""
    waits = job.arguments.get(NOT_BEFORE)
    engine.submit(
        job.id,
        queue=job.queue,
        priority=job.priority,
        partition=partition or partition_of(job.kind, job.policy),  # type: ignore[arg-type]
        not_before=None if waits is None else datetime.fromisoformat(waits),
    )


def end_waiting(catalog: Catalog, clock: Clock, job_id: str) -> bool:
    """The end of a job that was cancelled before anybody began it, or after it was given back."""
    with catalog.session() as session:
        waiting = update(Job).where(Job.id == job_id, Job.status == "queued", Job.cancel_asked.is_(True))
        return changed(session, waiting.values(status="cancelled", finished_at=clock.now()))
