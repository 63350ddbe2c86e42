"""Targets that messages do not reach."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select

from backstay.catalog.models import OutboxMessage, Target
from backstay.control.notifying.addresses import hidden
from backstay.control.notifying.conditions.condition import Condition, Look


def undeliverable(look: Look) -> Iterator[Condition]:
    """Each target for which a message was given up, until one reaches it again; it is told to all others."""
    rows = look.session.execute(
        select(Target, func.max(OutboxMessage.given_up_at), func.max(OutboxMessage.sent_at))
        .join(OutboxMessage, OutboxMessage.target_id == Target.id)
        .where(Target.enabled.is_(True))
        .group_by(Target.id)
        .having(func.max(OutboxMessage.given_up_at).is_not(None))
        .order_by(Target.name)
    )
    for target, given_up, sent in rows:
        if given_up is None or (sent is not None and sent >= given_up):
            continue
        error = look.session.scalar(
            select(OutboxMessage.last_error)
            .where(OutboxMessage.target_id == target.id, OutboxMessage.given_up_at.is_not(None))
            .order_by(OutboxMessage.given_up_at.desc())
            .limit(1)
        )
        yield Condition(
            kind="undeliverable",
            subject=f"target {target.name}",
            severity="warning",
            title=f"messages do not reach {target.name} ({hidden(target.address)})",
            ended=f"messages reach {target.name} again",
            cause=error or "",
            solution="mend its address, then send it a test",
            but=frozenset({target.id}),
        )
