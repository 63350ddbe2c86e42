"""Jobs that ended long ago go, with their logs. What they did stays told by backups, evidence and the audit log.

Some stay however old they are: those whose end was not counted and told of yet, the last of each schedule, and of each
kind and policy the last that came to an end of its own, which says how its backups are.

Crash order: each batch is one transaction, lines before jobs. A crash leaves whole jobs, which the next time takes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from backstay.catalog.database import Catalog
from backstay.catalog.models import ScheduleRecord
from backstay.catalog.models.jobs import FINISHED, Job, JobLine

_AT_ONCE: Final = 100
_MOST_BATCHES: Final = 200  # in one go: whoever clears comes again


def clear_jobs(catalog: Catalog, before: datetime) -> int:
    """Delete jobs that were over before a time; how many. Any number of processes may. Raises CatalogUnavailable."""
    done = 0
    for _ in range(_MOST_BATCHES):
        deleted = catalog.transact(lambda session: _batch(session, before))
        done += deleted
        if deleted < _AT_ONCE:
            break
    return done


def _batch(session: Session, before: datetime) -> int:
    ids = list(session.scalars(_old(before).limit(_AT_ONCE).with_for_update(skip_locked=True, of=Job)))
    if ids:
        session.execute(delete(JobLine).where(JobLine.job_id.in_(ids)))
        session.execute(delete(Job).where(Job.id.in_(ids)))
    return len(ids)


def _old(before: datetime) -> Select[str]:
    return (
        select(Job.id)
        .where(Job.status.in_(FINISHED), Job.created_at < before, Job.finished_at < before)
        .where(Job.settled_at.is_not(None), _is_not_last_of_schedule(), or_(Job.status == "cancelled", _has_newer()))
        .order_by(Job.created_at)
    )


def _is_not_last_of_schedule() -> ColumnElement[bool]:
    return ~exists().where(ScheduleRecord.last_job_id == Job.id)


def _has_newer() -> ColumnElement[bool]:
    """Whether another job of the same kind and policy came to an end of its own after it, and was no dry run."""
    newer = aliased(Job)
    same_policy = or_(newer.policy == Job.policy, and_(newer.policy.is_(None), Job.policy.is_(None)))
    later = or_(newer.finished_at > Job.finished_at, and_(newer.finished_at == Job.finished_at, newer.id > Job.id))
    counts = and_(newer.status.in_(("succeeded", "failed")), newer.arguments["dry_run"].as_boolean().is_not(True))
    return exists().where(newer.kind == Job.kind, same_policy, counts, later)
