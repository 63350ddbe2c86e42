"""How the backups are: the answer to somebody who asks whether all is well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup, Job
from backstay.control.metrics.failures import open_failure

MonitorState: TypeAlias = Literal["success", "failure", "in_progress", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorError:
    """Why the last backup failed."""

    code: str
    title: str
    cause: str
    solution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorStatus:
    """The state of a policy, or of all. `size` in bytes and `duration` in seconds are those of the newest good backups,
    one of each source; `errors` those of the last run that failed and was not done again.
    """

    status: MonitorState
    last_backup: datetime | None
    size: int
    duration: float
    errors: tuple[MonitorError, ...] = ()


def monitor_status(catalog: Catalog, policy: str | None = None) -> MonitorStatus:
    """How the backups of a policy are, or those of all policies together. Raises CatalogUnavailable."""
    with catalog.reading() as session:
        running = session.scalar(
            _of(select(Job.id).where(Job.kind == "backup", Job.status == "running"), policy).limit(1)
        )
        failed = _open_failures(session, policy)
        newest = _newest_backups(session, policy)
    if running is not None:
        status: MonitorState = "in_progress"
    elif failed:
        status = "failure"
    else:
        status = "success" if newest else "never"
    return MonitorStatus(
        status=status,
        last_backup=max((backup.time for backup in newest), default=None),
        size=sum(backup.bytes for backup in newest),
        duration=sum(backup.duration_s or 0.0 for backup in newest),
        errors=tuple(_error(job) for job in failed),
    )


def _of(asked: Select[str], policy: str | None) -> Select[str]:
    return asked if policy is None else asked.where(Job.policy == policy)


def _open_failures(session: Session, policy: str | None) -> list[Job]:
    """Of each policy the last backup that failed and was not done again."""
    names: list[str | None] = [policy]
    if policy is None:
        names = list(session.scalars(select(Job.policy).where(Job.kind == "backup").distinct()))
    return [job for name in names if (job := open_failure(session, "backup", name)) is not None]


def _newest_backups(session: Session, policy: str | None) -> list[Backup]:
    """The newest good backup of each source."""
    sources = select(Backup.source).distinct()
    found = []
    for source in session.scalars(sources if policy is None else sources.where(Backup.policy == policy)):
        newest = session.scalar(
            select(Backup)
            .where(Backup.source == source, Backup.damaged.is_(False))
            .order_by(Backup.time.desc(), Backup.id.desc())
            .limit(1)
        )
        if newest is not None:
            found.append(newest)
    return found


def _error(job: Job) -> MonitorError:
    error = job.error or {}
    return MonitorError(
        code=error.get("code", "BackupFailed"),
        title=error.get("title", "the backup failed"),
        cause=error.get("cause", ""),
        solution=error.get("solution", ""),
    )
