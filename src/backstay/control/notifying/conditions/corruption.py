"""Backups that are damaged, or that a verification found to be no good."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from sqlalchemy import or_, select

from backstay.catalog.models import Backup
from backstay.control.notifying.conditions.condition import Condition, Look, told_time
from backstay.core.quantities import plural

_NAMED: Final = 5


def damaged(look: Look) -> Iterator[Condition]:
    """Each source that has such backups; it ends when they are mended and verified, or deleted."""
    sources = [one.source for one in look.facts if one.bad]
    if not sources:
        return
    rows = look.session.execute(
        select(Backup.source, Backup.policy, Backup.id, Backup.time)
        .where(Backup.source.in_(sources), or_(Backup.damaged.is_(True), Backup.verified_ok.is_(False)))
        .order_by(Backup.source, Backup.time.desc())
    )
    for (source, policy), group in groupby(rows, key=lambda row: (row[0], row[1])):
        found = list(group)
        named = ", ".join(f"{one[2]} of {told_time(one[3])}" for one in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        yield Condition(
            kind="corruption",
            subject=source,
            severity="error",
            title=f"{plural(len(found), 'backup')} of {source} failed verification",
            ended=f"no backup of {source} is known to be damaged any more",
            cause=f"{named}{more}",
            solution="run a full backup now, then `backstay verify` and `backstay repair`; a copy may help",
            policy=policy,
            details={"backups": [one[2] for one in found[:_NAMED]]},
        )
