"""What failed and was not done again since: that says how the backups of a policy are, whatever else went well."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from backstay.catalog.models import Job
from backstay.catalog.models.base import Document

_BY_THEMSELVES: Final = ("succeeded", "failed")  # a job that was cancelled says nothing


def is_dry(job: Job) -> bool:
    """Whether it only said what it would do: nothing was done, and nothing can have failed."""
    return bool(job.arguments.get("dry_run"))


def open_failure(session: Session, kind: str, policy: str | None) -> Job | None:
    """The newest job of a kind and policy that failed and was not done again since; jobs may have ended in any order.

    Done again is what a later success did: the same sources or all of them, and a full backup only by a full one.
    """
    ours = (
        select(Job)
        .where(Job.kind == kind, Job.policy.is_(None) if policy is None else Job.policy == policy)
        .where(Job.status.in_(_BY_THEMSELVES))
        .order_by(Job.finished_at.desc(), Job.id.desc())
    )
    full = ours.where(or_(*(Job.arguments[key].as_string() == "full" for key in ("type", "kind"))))
    found = [job for asked in (ours, full) if (job := _not_done_again(session, asked)) is not None]
    return max(found, key=lambda job: (job.finished_at, job.id), default=None)


def _not_done_again(session: Session, newest_first: Select[Job]) -> Job | None:
    done: set[str] = set()
    with session.scalars(newest_first.execution_options(yield_per=20)) as jobs:
        for job in jobs:
            if is_dry(job):
                continue
            if job.status == "failed" and not _is_done(job, done):
                return job
            if not _asked(job):  # all: what failed of it was done again, and the rest it did
                return None
            done |= _done_by(job)
    return None


def _is_done(failed: Job, done: set[str]) -> bool:
    if sources := _failed(failed):
        return sources <= done
    asked = _asked(failed)
    return bool(asked) and all(name in done or f"{failed.policy}-{name}" in done for name in asked)


def _done_by(job: Job) -> set[str]:
    """What it did well, by the names of snapshots where these are told, else by those that it was asked for."""
    if sources := _sources(job):
        return {source["name"] for source in sources if not source.get("error")}
    return _asked(job) if job.status == "succeeded" else set()


def _asked(job: Job) -> set[str]:
    """The sources or backups that a job was asked for by name; none means all."""
    return {*(job.arguments.get("sources") or ()), *(job.arguments.get("backups") or ())}


def _failed(job: Job) -> set[str]:
    """The sources that failed, where nothing else did; none if the whole failed."""
    outcome = (job.result or {}).get("outcome") or {}
    verification = outcome.get("verification") or {"ok": True}
    if outcome.get("error") or not verification["ok"] or any(hook["error"] for hook in outcome.get("hooks", ())):
        return set()
    return {source["name"] for source in _sources(job) if source.get("error")}


def _sources(job: Job) -> list[Document]:
    outcome = (job.result or {}).get("outcome") or {}
    return list(outcome.get("sources", ()))
