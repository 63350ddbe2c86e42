"""Which jobs a list shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, select

from backstay.catalog.models.jobs import Job, JobKind, JobStatus
from backstay.catalog.pages import Order
from backstay.control.access.scopes import policy_scope, source_scope, within

NEWEST_FIRST: Final = Order(name="jobs", keys=(Job.created_at, Job.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilters:
    """Which jobs; None for any. `since` and `until` are of when they were asked for, `scopes` what somebody may see."""

    kinds: Sequence[JobKind] | None = None
    other_than: Sequence[JobKind] = ()  # many kinds are better told by those that are not meant: the newest come first
    status: JobStatus | Sequence[JobStatus] | None = None
    policy: str | None = None
    source: str | None = None  # with a policy, the snapshots' name: jobs of this source, or of the policy as a whole
    actor: str | None = None
    backup_id: str | None = None
    schedule_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    scopes: Sequence[str] | None = None


def filtered(filters: JobFilters) -> Select[Job]:
    """The query of all jobs that pass."""
    query = select(Job)
    if filters.kinds is not None:
        query = query.where(Job.kind.in_(filters.kinds))
    if filters.other_than:
        query = query.where(Job.kind.not_in(filters.other_than))
    if filters.status is not None:
        wanted = [filters.status] if isinstance(filters.status, str) else list(filters.status)
        query = query.where(Job.status.in_(wanted))
    for name in ("policy", "actor", "backup_id", "schedule_id"):
        if (value := getattr(filters, name)) is not None:
            query = query.where(getattr(Job, name) == value)
    if filters.policy is not None and filters.source is not None:
        query = query.where(Job.scope.in_((policy_scope(filters.policy), source_scope(filters.policy, filters.source))))
    if filters.since is not None:
        query = query.where(Job.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(Job.created_at < filters.until)
    if filters.scopes is not None:
        query = query.where(within(Job.scope, filters.scopes))
    return query
