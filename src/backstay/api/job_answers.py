"""Jobs as answers: one, a page of them, their logs, and the ends that somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from fastapi import Response

from backstay.api.answers import answer, page
from backstay.api.call import Call
from backstay.api.known import told_as
from backstay.api.models.jobs import JobDocument, JobQuery, LineDocument, LogQuery
from backstay.api.problems import job_problem
from backstay.api.streams import Sent
from backstay.catalog.models import Job, JobLine
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.kinds import JobKind
from backstay.control.jobs.listing import JobFilters
from backstay.errors import InvalidRequest, NotFound

RESTORES: Final[tuple[JobKind, ...]] = ("restore", "recovery")
OTHERS: Final[tuple[JobKind, ...]] = (
    "backup", "verification", "rehearsal", "prune", "gc", "copy", "delete", "notification",
)  # fmt: skip


def address_of(job: Job) -> str:
    """Where a job is told of."""
    return f"/api/{'restore' if job.kind in RESTORES else 'backup'}/jobs/{job.id}"


def accepted(call: Call, job: Job) -> Response:
    """A job that was asked for."""
    call.about(f"job/{job.id}", kind=job.kind, policy=job.policy)
    return answer(job_document(job), 202, location=address_of(job))


def job_document(job: Job) -> JobDocument:
    """A job as answers show it."""
    arguments = job.arguments or {}
    return JobDocument(
        id=job.id,
        kind=job.kind,
        status=job.status,  # type: ignore[typeddict-item]  # the column holds nothing else
        policy=job.policy,
        sources=list(arguments.get("sources") or ()),
        type=arguments.get("type"),
        actor=job.actor,
        backup_id=job.backup_id,
        restore_id=job.id if job.kind in RESTORES else None,
        schedule_id=job.schedule_id,
        scheduled_for=job.scheduled_for,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        duration_s=_duration(job.started_at, job.finished_at),
        attempts=job.attempts,
        worker=job.worker,
        agent=job.agent,
        cancel_asked=job.cancel_asked,
        progress=job.progress,
        result=job.result,
        error=job_problem(job.error),
    )


def _duration(began: datetime | None, ended: datetime | None) -> float | None:
    return None if began is None or ended is None else (ended - began).total_seconds()


def job_meant(call: Call, ident: str, kinds: Sequence[str]) -> Job:
    """A job that the caller may do this to. Raises NotFound, also for one of another kind; Forbidden."""
    missing = NotFound(f"there is no job {ident[:80]!r}", hint="the list of jobs shows them")
    with told_as(missing):
        job = call.backing.jobs.get(ident)
    if job.kind not in kinds:
        raise missing
    call.about(f"job/{job.id}", kind=job.kind, policy=job.policy)
    call.require(job.scope, seen="backup:read", missing=missing)
    return job


def jobs_page(call: Call, asked: JobQuery, kinds: Sequence[JobKind]) -> Response:
    """The jobs of some kinds that the caller may see, the newest first."""
    if asked.source is not None and asked.policy is None:
        raise InvalidRequest("a source needs its policy", cause="sources of two policies may have one name")
    filters = JobFilters(
        kinds=None if kinds == OTHERS else tuple(kinds),
        other_than=RESTORES if kinds == OTHERS else (),
        source=asked.source,
        status=asked.status,
        policy=asked.policy,
        schedule_id=asked.schedule,
        since=asked.since,
        until=asked.until,
        scopes=call.scopes,
    )
    found = call.backing.jobs.page(filters, asked.limit, asked.cursor)
    return page([job_document(job) for job in found.items], found.next)


def cancelled(call: Call, ident: str, kinds: Sequence[str]) -> Response:
    """Ask for the end of a job; asking again changes nothing. Raises JobConflict when it has ended."""
    job = job_meant(call, ident, kinds)
    done = call.backing.jobs.cancel(job.id, call.principal.name, within=call.record)
    return answer(job_document(done), 202, location=address_of(done))


def log_page(call: Call, ident: str, kinds: Sequence[str], asked: LogQuery) -> Response:
    """Lines of a job's log in order."""
    job = job_meant(call, ident, kinds)
    after = 0 if asked.cursor is None else _line_number(asked.cursor)
    lines = call.backing.jobs.lines(job.id, after=after, limit=asked.limit + 1)
    shown = [line for line in lines[: asked.limit] if asked.level in (None, line.level)]
    following = str(lines[asked.limit - 1].id) if len(lines) > asked.limit else None
    return page([line_document(line) for line in shown], following)


def line_document(line: JobLine) -> LineDocument:
    """A line of a log as answers show it."""
    return LineDocument(id=line.id, time=line.time, level=line.level, message=line.message)


def _line_number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor cannot be so", cause="it is not one that this list gave")
    return int(cursor)


class WatchedJob:
    """What a stream tells of one job: each change of it, and each line of its log once."""

    def __init__(self, jobs: Jobs, ident: str, last_line: int) -> None:
        self._jobs, self._ident, self._last = jobs, ident, last_line
        self._shown: JobDocument | None = None
        self.ended = False

    def look(self) -> Sequence[Sent]:
        """What is new. The job is read before its lines, so that none is missing once it has ended."""
        job = self._jobs.get(self._ident)
        lines = self._jobs.lines(self._ident, after=self._last)
        document = job_document(job)
        found = [Sent(event="line", data=line_document(line), ident=str(line.id)) for line in lines]
        self._last = lines[-1].id if lines else self._last
        if document != self._shown:
            self._shown = document
            found.append(Sent(event="job", data=document))
        self.ended = job.finished_at is not None and not lines
        return found
