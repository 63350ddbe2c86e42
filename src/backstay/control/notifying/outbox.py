"""Messages that wait to be sent: written with what they tell, delivered later, at least once.

Order: a message is written in the transaction of what it tells, so that neither is there without the other. Whoever
delivers it claims it first, by moving its next try behind the time that a delivery may take, sends it outside of any
transaction, and notes then that it was sent. A crash between leaves a message that is sent again when the claim has
passed: its id is the same, so that a receiver can tell. Only the oldest message that waits for a target is claimed, so
that none overtakes another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import OutboxMessage, Target
from backstay.control.notifying.addresses import is_ping
from backstay.control.notifying.messages import Message, body_of, title_of
from backstay.control.notifying.notices import Notice
from backstay.control.notifying.sending import Sender
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid
from backstay.errors import NotificationFailed

# Between tries; after the last one nobody tries any more. All together they are a little more than two days.
WAITS: Final = tuple(timedelta(minutes=minutes) for minutes in (0.5, 2, 5, 15, 30, 60, 120, 240, 480, 720, 1440))
# Messages wait behind older ones: one that is as old as this has had its time, however often it was tried itself.
PATIENCE: Final = sum(WAITS, timedelta())
PING_TRIES: Final = 4  # a sign of life that comes hours late would be a lie
CLAIM: Final = timedelta(minutes=5)  # longer than the longest delivery
PING_PATIENCE: Final = sum(WAITS[: PING_TRIES - 1], timedelta())
KEPT: Final = timedelta(days=30)  # so long the text of what was sent or given up can be looked at
_AT_ONCE: Final = 100  # messages to one target

_WAITS: Final = OutboxMessage.next_try_at.is_not(None)

_Outcome: TypeAlias = Literal["sent", "failed", "given up"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of the messages that were due."""

    sent: int = 0
    failed: int = 0
    given_up: int = 0


def write(session: Session, notice: Notice, targets: Iterable[Target], *, clock: Clock, random: Random) -> list[str]:
    """Lay a message for each target into the outbox; their ids. Part of the caller's transaction."""
    ids = []
    for target in targets:
        message_id = new_ulid(clock.now_ns(), random)
        session.add(
            OutboxMessage(
                message_id=message_id,
                target_id=target.id,
                kind=notice.kind,
                policy=notice.policy,
                severity=notice.severity,
                title=title_of(notice),
                body=body_of(notice, message_id),
                created_at=clock.now(),
                next_try_at=clock.now(),
            )
        )
        ids.append(message_id)
    return ids


def targets_due(catalog: Catalog, clock: Clock) -> list[str]:
    """The targets whose oldest waiting message is due. Raises CatalogUnavailable."""
    oldest = select(func.min(OutboxMessage.id)).where(_WAITS).group_by(OutboxMessage.target_id)
    with catalog.reading() as session:
        return list(
            session.scalars(select(OutboxMessage.target_id).where(OutboxMessage.id.in_(oldest), _is_due(clock.now())))
        )


def deliver_due(
    catalog: Catalog, clock: Clock, sender: Sender, target: str, go_on: Callable[[], bool] = lambda: True
) -> Delivered:
    """Send what waits for a target in its order, up to the first that is not due or fails, while it is said to go on.

    Several processes may do so at once. Raises CatalogUnavailable.
    """
    sent = failed = given_up = 0
    theirs = select(OutboxMessage.message_id).where(_WAITS, OutboxMessage.target_id == target)
    with catalog.reading() as session:
        waiting = list(session.scalars(theirs.order_by(OutboxMessage.id).limit(_AT_ONCE)))
    for message_id in waiting:
        if not go_on():
            break
        outcome = _deliver(catalog, clock, sender, message_id)
        sent += outcome == "sent"
        failed += outcome == "failed"
        given_up += outcome == "given up"
        if outcome not in ("sent", "given up"):  # what comes after it waits for it
            break
    return Delivered(sent=sent, failed=failed, given_up=given_up)


def forget_old(session: Session, now: datetime) -> None:
    """Remove messages that need no more to be looked at."""
    session.execute(delete(OutboxMessage).where(_is_old(now)))


def has_old(session: Session, now: datetime) -> bool:
    """Whether there are such."""
    return session.scalar(select(OutboxMessage.id).where(_is_old(now)).limit(1)) is not None


def _is_old(now: datetime) -> ColumnElement[bool]:
    return and_(OutboxMessage.next_try_at.is_(None), OutboxMessage.created_at < now - KEPT)


def _is_due(now: datetime) -> ColumnElement[bool]:
    return OutboxMessage.next_try_at <= now


def _deliver(catalog: Catalog, clock: Clock, sender: Sender, message_id: str) -> _Outcome:
    claimed = _claim(catalog, clock, message_id)
    if claimed is None:
        return None
    message, address, tries, age = claimed
    error: str | None = None
    more = True
    if address is None:
        error, more = "its target is gone or switched off", False
    else:
        most, patience = (PING_TRIES, PING_PATIENCE) if is_ping(address) else (len(WAITS) + 1, PATIENCE)
        more = tries < most and age < patience
        try:
            sender.send(message, address)
        except NotificationFailed as failure:
            error = str(failure)
    return _note(catalog, clock, message_id, tries, error, more=more)


def _claim(catalog: Catalog, clock: Clock, message_id: str) -> tuple[Message, str | None, int, timedelta] | None:
    """The message, where it goes, which try this is, and its age; None if it is not due, or somebody else has it."""
    now = clock.now()
    mine = update(OutboxMessage).where(OutboxMessage.message_id == message_id, OutboxMessage.next_try_at <= now)
    with catalog.session() as session:
        row = session.scalar(
            mine.values(next_try_at=now + CLAIM, tries=OutboxMessage.tries + 1).returning(OutboxMessage)
        )
        if row is None:
            return None
        target = session.get(Target, row.target_id)
        message = Message(
            id=row.message_id,
            severity=row.severity,
            kind=row.kind,
            policy=row.policy,
            title=row.title,
            body=row.body,
        )
        address = target.address if target is not None and target.enabled else None
        return message, address, row.tries, now - row.created_at


def _note(catalog: Catalog, clock: Clock, message_id: str, tries: int, error: str | None, *, more: bool) -> _Outcome:
    """Write down what became of a try, unless a later one has begun. `more` says whether there will be one."""
    now = clock.now()
    values: dict[str, object] = {"last_error": error, "next_try_at": None}
    outcome: _Outcome = "sent"
    if error is None:
        values["sent_at"] = now
    elif more:
        values["next_try_at"], outcome = now + WAITS[tries - 1], "failed"
    else:
        values["given_up_at"], outcome = now, "given up"
    ours = update(OutboxMessage).where(OutboxMessage.message_id == message_id, OutboxMessage.tries == tries)
    with catalog.session() as session:
        target = session.scalar(ours.values(values).returning(OutboxMessage.target_id))
        if outcome == "sent" and target is not None:  # it takes messages again
            others = update(OutboxMessage).where(OutboxMessage.target_id == target, OutboxMessage.next_try_at > now)
            session.execute(others.values(next_try_at=now))
    return outcome
