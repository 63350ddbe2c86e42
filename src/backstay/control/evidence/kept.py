"""Evidence in the catalog: a row for each backup that a report is about, and what that says about the backup."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from backstay.control.evidence.seal import Evidence, opened
from backstay.core.ids import new_ulid
from backstay.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from backstay.catalog.models import Evidence as Row
    from backstay.core.ids import Random


def store(
    session: Session, evidence: Evidence, *, now: datetime, random: Random, job_id: str | None = None
) -> list[str]:
    """Keep it, in the caller's transaction; the ids of the rows.

    The backups' rows, where there are any, tell from then on when they were last verified or rehearsed and how it went.
    """
    from backstay.catalog.models import Backup
    from backstay.catalog.models import Evidence as Row

    ids: list[str] = []
    for backup in evidence.report["backups"]:
        rehearsed = backup["rehearsal"]
        ok = bool(evidence.report["ok"]) if rehearsed is None else bool(rehearsed["ok"])
        row = Row(
            id=new_ulid(int(now.timestamp() * 1e9), random),
            job_id=job_id,
            backup_id=backup["id"],
            kind=evidence.report["kind"],
            ok=ok,
            created_at=now,
            report=evidence.document(),
            digest=evidence.sha256,
        )
        session.add(row)
        ids.append(row.id)
        known = session.get(Backup, backup["id"])
        if known is not None:
            known.verified_at, known.verified_ok = now, bool(evidence.report["ok"])
            if rehearsed is not None:
                known.rehearsed_at, known.rehearsed_ok = now, ok
    return ids


def newest(session: Session, *, backup: str | None = None, limit: int) -> Sequence[Row]:
    """Kept reports, the newest first; of one backup, or of all."""
    from sqlalchemy import select

    from backstay.catalog.models import Evidence as Row

    query = select(Row).order_by(Row.created_at.desc(), Row.id.desc()).limit(limit)
    return session.scalars(query if backup is None else query.where(Row.backup_id == backup)).all()


def found(session: Session, ident: str) -> Row:
    """The report whose id begins so. Raises NotFound, InvalidRequest for one that is not unique."""
    from sqlalchemy import select

    from backstay.catalog.models import Evidence as Row

    rows = session.scalars(select(Row).where(Row.id.startswith(ident.lower(), autoescape=True)).limit(2)).all()
    if not rows:
        raise NotFound(f"no report's id begins with {ident[:80]!r}", hint="`backstay evidence list` shows them")
    if len(rows) > 1:
        raise InvalidRequest(
            f"several reports' ids begin with {ident[:80]!r}", cause="it is too short", hint="give more of the id"
        )
    return rows[0]


def evidence_of(row: Row) -> Evidence:
    """The evidence of a row, checked. Raises CorruptedBackup when the catalog was changed."""
    return opened(row.report)
