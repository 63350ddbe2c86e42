"""What is counted of a job that came to its end. A histogram is counters: no scrape looks at old jobs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.models import Backup, Job
from backstay.catalog.models.base import Document
from backstay.control.metrics.counters import count
from backstay.control.metrics.names import CORRUPTED, DURATION, JOBS, MISSING, SOURCE_BYTES, STORED_BYTES

BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0)  # seconds
BUCKET: Final = f"{DURATION}_bucket"  # each holds only what is above the one before: one row changes for a job
SUM: Final = f"{DURATION}_sum"
_BEYOND: Final = "+Inf"


def bound_of(seconds: float) -> str:
    """The bucket that a duration belongs to, by its upper bound."""
    at = bisect_left(BUCKETS, seconds)
    return _BEYOND if at == len(BUCKETS) else str(BUCKETS[at])


def count_job(session: Session, job: Job) -> None:
    """Count a job that ended, in the transaction that says so once (`settle`)."""
    count(session, JOBS, {"kind": job.kind, "status": job.status, "source": job.policy or ""})
    if job.started_at is not None and job.finished_at is not None:
        seconds = max(0.0, (job.finished_at - job.started_at).total_seconds())
        count(session, BUCKET, {"kind": job.kind, "le": bound_of(seconds)})
        count(session, SUM, {"kind": job.kind}, seconds)
    if job.kind == "backup":
        _count_bytes(session, job)
    for verified in _verified(job.result or {}):
        for name, found in ((CORRUPTED, "damaged_objects"), (MISSING, "missing_objects")):
            if number := verified.get(found):
                count(session, name, {}, number)


def _verified(result: Document) -> Iterator[Document]:
    """What a verification found: the result of a job of its own, or a part of that of a backup."""
    yield result
    outcome = result.get("outcome")
    if isinstance(outcome, dict) and isinstance(outcome.get("verification"), dict):
        yield outcome["verification"]


def _count_bytes(session: Session, job: Job) -> None:
    ids = (job.result or {}).get("backups", [])
    for backup in session.scalars(select(Backup).where(Backup.id.in_(ids))):
        count(session, SOURCE_BYTES, {"source": backup.source}, backup.bytes)
        count(session, STORED_BYTES, {"source": backup.source}, backup.stored_bytes)
