"""Which jobs a list shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, bindparam

from backstay.catalog.models.jobs import Job, JobKind, JobStatus
from backstay.catalog.pages import Order
from backstay.catalog.records import Listing, Records
from backstay.control.access.scopes import policy_scope, source_scope, within

NEWEST_FIRST: Final = Order(name="jobs", keys=(Job.created_at, Job.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilters:
    """Which jobs; None for any. `since` and `until` are of when they were asked for, `ended_since` of when they ended,
    `scopes` what somebody may see.
    """

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
    ended_since: datetime | None = None
    scopes: Sequence[str] | None = None


def _conditions(filters: JobFilters, dialect: str) -> list[ColumnElement[bool]]:
    """What jobs must be to pass."""
    del dialect
    found: list[ColumnElement[bool]] = []
    if filters.kinds is not None:
        found.append(Job.kind.in_(filters.kinds))
    found += [Job.kind != kind for kind in filters.other_than]
    if filters.status is not None:
        wanted = [filters.status] if isinstance(filters.status, str) else list(filters.status)
        found.append(Job.status.in_(wanted))
    if filters.policy is not None:
        found.append(Job.policy == filters.policy)
    for name in _EQUAL:
        if getattr(filters, name) is not None:
            column = getattr(Job, name)
            found.append(column == bindparam(name, type_=column.type))
    if filters.policy is not None and filters.source is not None:
        found.append(Job.scope.in_((policy_scope(filters.policy), source_scope(filters.policy, filters.source))))
    if filters.since is not None:
        found.append(Job.created_at >= bindparam("since", type_=Job.created_at.type))
    if filters.until is not None:
        found.append(Job.created_at < bindparam("until", type_=Job.created_at.type))
    if filters.ended_since is not None:
        found.append(Job.finished_at >= bindparam("ended_since", type_=Job.finished_at.type))
    if filters.scopes is not None:
        found.append(within(Job.scope, filters.scopes))
    return found


_EQUAL: Final = ("actor", "backup_id", "schedule_id")
# The policy is part of a statement, because scopes are made of it.
_FREE: Final = (*_EQUAL, "since", "until", "ended_since")
LISTING: Final = Listing(Records(Job), NEWEST_FIRST, _conditions, filters=JobFilters, free=_FREE)
