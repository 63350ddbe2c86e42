"""Pages of jobs, the newest first, as far as somebody's scopes reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job
from backstay.catalog.pages import Order, Page, page_of
from backstay.control.access.scopes import policy_scope, source_scope, within

_ORDER: Final = Order(name="jobs", keys=(Job.created_at, Job.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilters:
    """Which jobs; None for any. With a `source` of a policy: those that were for it, or for the policy as a whole."""

    kinds: Sequence[str]
    scopes: Sequence[str]
    status: str | None = None
    policy: str | None = None
    source: str | None = None
    schedule_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def jobs_of(catalog: Catalog, filters: JobFilters, *, limit: int, cursor: str | None) -> Page[Job]:
    """Jobs that pass. Raises InvalidRequest."""
    query = select(Job).where(Job.kind.in_(filters.kinds), within(Job.scope, filters.scopes))
    for name in ("status", "policy", "schedule_id"):
        if (wanted := getattr(filters, name)) is not None:
            query = query.where(getattr(Job, name) == wanted)
    if filters.source is not None and filters.policy is not None:
        scopes = (policy_scope(filters.policy), source_scope(filters.policy, filters.source))
        query = query.where(Job.scope.in_(scopes))
    if filters.since is not None:
        query = query.where(Job.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(Job.created_at < filters.until)
    with catalog.reading() as session:
        return page_of(session, query, _ORDER, limit=limit, cursor=cursor)
