"""Jobs that neither begin nor end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import and_, or_, select

from backstay.catalog.models import Job
from backstay.control.notifying.conditions.condition import Condition, Look, told_length


def stuck(look: Look) -> Iterator[Condition]:
    """Each job that runs or waits for longer than is expected."""
    running, waiting = look.now - look.expected.running, look.now - look.expected.waiting
    rows = look.session.scalars(
        select(Job)
        .where(
            or_(
                and_(Job.status == "running", Job.started_at < running),
                and_(Job.status == "queued", Job.created_at < waiting),
            )
        )
        .order_by(Job.created_at)
    )
    for job in rows:
        if job.status == "queued" and _may_wait(job, waiting):
            continue
        what = f"{job.kind} of {job.policy}" if job.policy else job.kind
        begin = (job.started_at or job.created_at) if job.status == "running" else job.created_at
        verb, cause, solution = (
            ("runs", f"on {job.worker or 'a worker'}", "look at its progress and log; cancel it if it stands still")
            if job.status == "running"
            else ("waits", *_waits(job))
        )
        yield Condition(
            kind="job_stuck",
            subject=f"job {job.id}",
            severity="warning",
            title=f"{what} {verb} for {told_length(look.now - begin)}",
            ended=f"{what} goes on",
            cause=f"job {job.id}, {cause}",
            solution=solution,
            policy=job.policy,
            details={"job": job.id},
        )


def _waits(job: Job) -> tuple[str, str]:
    """Where a job waits, and what to do about it."""
    if job.agent is not None:
        return (
            f"for the agent {job.agent}",
            "see that `backstay agent run` runs there; see `backstay agent list`",
        )
    return f"in the queue {job.queue}", "see that workers for this queue run and are not all busy"


def _may_wait(job: Job, waiting: datetime) -> bool:
    """Whether a job was told not to begin before a time that is not long ago."""
    until = job.arguments.get("not_before")
    return until is not None and datetime.fromisoformat(until) >= waiting
