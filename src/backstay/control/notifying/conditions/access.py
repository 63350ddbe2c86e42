"""Somebody is refused again and again."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select

from backstay.catalog.models import AuditEntry
from backstay.control.notifying.conditions.condition import Condition, Look, told_length


def refused_often(look: Look) -> Iterator[Condition]:
    """Each actor that was refused too often of late; it ends when that was long enough ago."""
    limit, within = look.expected.denials, look.expected.denials_within
    rows = look.session.execute(
        select(AuditEntry.actor, func.count())
        .where(AuditEntry.outcome == "deny", AuditEntry.time > look.now - within)
        .group_by(AuditEntry.actor)
        .having(func.count() >= limit)
        .order_by(AuditEntry.actor)
    )
    for actor, number in rows:
        yield Condition(
            kind="access_violation",
            subject=actor,
            severity="warning",
            title=f"{actor} was refused {number} times",
            ended=f"{actor} is no longer refused",
            cause=f"within {told_length(within)}; {limit} are too many",
            solution="look at the audit log: a forgotten script, or somebody who tries; revoke the token if in doubt",
        )
