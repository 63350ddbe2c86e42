"""Where agents fetch their jobs and bring what became of them. Each sees those that are bound to it, and no others.

What holds for workers holds here: a row says `running` before the work is handed out; each write names the tenure, so
that a process that was taken for gone cannot write into a job that was given back; an end is written once.

Crash order: the row is ours before the agent hears of it. An answer that gets lost leaves a row of a process that does
not know of it: the next time that it asks, it is handed the same job again. A process that is gone leaves a row that
`AgentSweeper` gives back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session, aliased

from backstay.catalog.database import Catalog
from backstay.catalog.locking import take
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import AGENTS, FINISHED, Job
from backstay.control.agents.processes import AgentProcesses, Caller
from backstay.control.agents.work import Work, work_of
from backstay.control.jobs.jobs import NOT_BEFORE, end_waiting
from backstay.control.jobs.rows import JobRows, Line, Tenure
from backstay.control.jobs.running import MOST_ATTEMPTS
from backstay.control.policies.loading import LoadedPolicies
from backstay.core.clock import Clock
from backstay.errors import BackstayError, JobLost, NotFound
from backstay.errors.documents import problem_document

AgentEnd: TypeAlias = Literal["succeeded", "failed", "cancelled", "released"]
FRESH_S: Final = 0.5  # how old the knowledge may be of who has work: many wait, and one looks for all
_MOST_WAITING: Final = 100  # rows that are looked at for one that may begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A job that was handed out."""

    tenure: Tenure
    policy: str
    work: Work


class Desk:
    """All methods raise CatalogUnavailable."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        processes: AgentProcesses,
        policies: Callable[[], LoadedPolicies | None],
    ) -> None:
        self._catalog, self._clock, self._policies = catalog, clock, policies
        self._rows, self._processes = JobRows(catalog, clock), processes
        self._lock = threading.Lock()
        self._awaited: frozenset[str] = frozenset()
        self._looked: float | None = None

    def has_work(self, agent: str) -> bool:
        """Whether it is worth while for an agent to ask; looked up once for all that wait."""
        with self._lock:
            now = self._clock.monotonic()
            if self._looked is None or now - self._looked >= FRESH_S:
                with self._catalog.reading() as session:
                    waiting = select(Job.agent).where(Job.status == "queued", Job.queue == AGENTS).distinct()
                    self._awaited = frozenset(name for name in session.scalars(waiting) if name is not None)
                self._looked = now
            return agent in self._awaited

    def take(self, caller: Caller) -> Handed | None:
        """A job for a process that has none: what it was handed before and did not hear of, else one that waits.

        A job whose policy is no longer this agent's ends here, and so does one that came to no end too often.
        """
        self._processes.beat(caller)
        while (ident := self._catalog.transact(lambda session: self._chosen(session, caller))) is not None:
            begun = self._rows.begin(ident, caller.worker)
            if begun is None:
                continue
            tenure, job = begun
            if (handed := self._handed(tenure, job, caller.agent)) is not None:
                return handed
        return None

    def note(
        self, caller: Caller, job_id: str, attempt: int, progress: Document | None, lines: Sequence[Line]
    ) -> bool | None:
        """Add to what is known of a job; whether its end was asked for, None if it was given back. Raises NotFound."""
        self._processes.beat(caller)
        tenure = self._tenure(caller, job_id, attempt)
        return self._rows.note(tenure, progress, lines)

    def end(
        self,
        caller: Caller,
        job_id: str,
        attempt: int,
        status: AgentEnd,
        *,
        lines: Sequence[Line],
        progress: Document | None,
        result: Document | None,
        error: Document | None,
    ) -> bool:
        """How a job ended, or that it should be begun again; False if it was given back before. Raises NotFound.

        Told twice it is the same: an answer may have got lost.
        """
        self._processes.beat(caller)
        tenure = self._tenure(caller, job_id, attempt)
        if status == "released":
            given = self._rows.release(tenure, lines=lines, counts=False)
            end_waiting(self._catalog, self._clock, job_id)  # if somebody asked for its end meanwhile
            return given
        ours = self._rows.end(
            tenure,
            status,
            lines=lines,
            progress=progress,
            result=result,
            error=None if error is None else error | {"job_id": job_id},
            backup_id=(result or {}).get("backup_id"),
        )
        return ours or self._told_before(tenure)

    def policy_of(self, caller: Caller, job_id: str) -> str:
        """The policy of a job of this agent. Raises NotFound."""
        return self._job(caller, job_id).policy or ""

    # -- choosing

    def _chosen(self, session: Session, caller: Caller) -> str | None:
        take(session, f"agent {caller.agent}")  # two processes of one agent never choose the same
        mine = select(Job.id).where(Job.queue == AGENTS, Job.agent == caller.agent)
        unheard = session.scalar(mine.where(Job.status == "running", Job.worker == caller.worker).limit(1))
        if unheard is not None:
            return unheard
        now = self._clock.now()
        for job in session.scalars(_waiting(caller.agent)):
            after = (job.arguments or {}).get(NOT_BEFORE)
            if after is None or datetime.fromisoformat(after) <= now:
                job.status, job.worker = "running", caller.worker  # `begin` counts the attempt
                return job.id
        return None

    def _handed(self, tenure: Tenure, job: Job, agent: str) -> Handed | None:
        """The work of a job that is ours now; None for one that has ended by this."""
        name = job.policy or ""
        try:
            if job.attempts > MOST_ATTEMPTS:
                raise JobLost(
                    "the job was begun again and again, and never came to an end",
                    cause=f"{job.attempts - 1} attempts ended with the process of the agent that ran it",
                )
            if job.cancel_asked:
                self._rows.end(tenure, "cancelled")
                return None
            if (loaded := self._policies()) is None:
                raise NotFound(f"there is no policy {name!r}", cause="the service has no policy file")
            work = work_of(name, job.arguments or {}, loaded, agent=agent)
        except BackstayError as error:
            lines = [Line(time=self._clock.now(), level="error", message=str(error))]
            problem = problem_document(error) | {"job_id": job.id}
            self._rows.end(tenure, "failed", lines=lines, error=problem)
            return None
        return Handed(tenure=tenure, policy=name, work=work)

    # -- whose jobs these are

    def _tenure(self, caller: Caller, job_id: str, attempt: int) -> Tenure:
        self._job(caller, job_id)
        return Tenure(job_id=job_id, worker=caller.worker, attempt=attempt)

    def _job(self, caller: Caller, job_id: str) -> Job:
        with self._catalog.reading() as session:
            job = session.get(Job, job_id)
        if job is None or job.queue != AGENTS or job.agent != caller.agent:
            raise NotFound(f"there is no job {job_id[:80]!r}", cause="none of this agent has this id")
        return job

    def _told_before(self, tenure: Tenure) -> bool:
        with self._catalog.reading() as session:
            job = session.get(Job, tenure.job_id)
        ended = job is not None and job.status in FINISHED
        return ended and job is not None and (job.worker, job.attempts) == (tenure.worker, tenure.attempt)


def _waiting(agent: str) -> Select[Job]:
    """Jobs that wait for an agent, the most urgent first; a policy never overlaps itself."""
    other = aliased(Job)
    overlaps = exists().where(other.status == "running", other.queue == AGENTS, other.policy == Job.policy)
    return (
        select(Job)
        .where(Job.queue == AGENTS, Job.agent == agent, Job.status == "queued", or_(Job.policy.is_(None), ~overlaps))
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(_MOST_WAITING)
        .with_for_update(of=Job)
    )
