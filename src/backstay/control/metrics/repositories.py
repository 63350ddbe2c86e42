"""Samples of repositories: written now and then by whoever has one open, read by metrics and alerts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from backstay.catalog.models import RepositorySample

KEPT: Final = timedelta(days=90)


def record_sample(session: Session, sample: RepositorySample) -> None:
    """Keep a sample, and forget those of long ago."""
    session.add(sample)
    session.execute(delete(RepositorySample).where(RepositorySample.time < sample.time - KEPT))


def newest_samples(session: Session) -> list[RepositorySample]:
    """The newest sample of each repository and tier."""
    newest = select(func.max(RepositorySample.id)).group_by(RepositorySample.repository, RepositorySample.tier)
    return list(session.scalars(select(RepositorySample).where(RepositorySample.id.in_(newest))))


def samples_since(session: Session, repository: str, tier: str, since: datetime) -> list[RepositorySample]:
    """The samples of a repository, the oldest first."""
    return list(
        session.scalars(
            select(RepositorySample)
            .where(
                RepositorySample.repository == repository,
                RepositorySample.tier == tier,
                RepositorySample.time >= since,
            )
            .order_by(RepositorySample.id)
        )
    )
