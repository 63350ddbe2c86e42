"""Alerts: what is wrong now. Each is told once when it begins and once when it ends, whoever looks and how often.

Order: an alert and the messages about it are one transaction, and only one process at a time changes alerts. A crash
leaves both or neither; the next look finds what still holds and tells nobody twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, cast

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import AlertState
from backstay.control.metrics.expectations import Expectations
from backstay.control.metrics.sources import SourceFacts, facts_of_sources
from backstay.control.notifying.conditions import LOOKS, Condition, Look
from backstay.control.notifying.conditions.workers import lost_worker
from backstay.control.notifying.notices import Notice, NoticeKind
from backstay.control.notifying.notifier import Notifier
from backstay.control.policies.notifications import Severity
from backstay.core.clock import Clock

_LOCK: Final = 0x6261_636B_616C  # of PostgreSQL, for as long as the transaction: "backal"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInfo:
    """An alert as people see it; `resolved_at` is None while it is on, `count` how often it began."""

    kind: str
    subject: str
    severity: str
    title: str
    cause: str
    solution: str
    policy: str | None
    began_at: datetime
    seen_at: datetime
    resolved_at: datetime | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Fingerprints of what began and what ended at one look."""

    began: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


class Alerts:
    """The alerts of a catalog. `expected` is asked at each look: a policy file may be loaded again meanwhile."""

    def __init__(
        self, catalog: Catalog, clock: Clock, notifier: Notifier, *, expected: Callable[[], Expectations] = Expectations
    ) -> None:
        self._catalog, self._clock, self._notifier, self._expected = catalog, clock, notifier, expected
        self._began = clock.now()

    def evaluate(self) -> Evaluated:
        """Look at everything; tell what began and what ended. Raises CatalogUnavailable."""
        facts: list[SourceFacts] | None = None
        if self._catalog.engine.dialect.name == "sqlite":  # one process, and nobody else writes during a transaction
            with self._catalog.reading() as session:
                facts = facts_of_sources(session)
        return self._catalog.transact(partial(self._evaluate, known=facts))

    def _evaluate(self, session: Session, *, known: list[SourceFacts] | None) -> Evaluated:
        alone(session)
        facts = facts_of_sources(session) if known is None else known
        on = frozenset(row.fingerprint for row in session.scalars(_on(LOOKS)))
        look = Look(
            session=session,
            now=self._clock.now(),
            expected=self._expected(),
            facts=facts,
            watched_since=self._began,
            on=on,
        )
        found = {one.fingerprint: one for looking in LOOKS.values() for one in looking(look)}
        began = [name for name, condition in found.items() if self.begin(session, condition)]
        ended = [name for name in sorted(on) if name not in found and self.end(session, name)]
        return Evaluated(began=tuple(began), ended=tuple(ended))

    def begin(self, session: Session, condition: Condition) -> bool:
        """Say that something holds, in the caller's transaction; whether it did not before, and was told now."""
        now = self._clock.now()
        row = session.get(AlertState, condition.fingerprint)
        begins = row is None or row.resolved_at is not None
        if row is None:
            row = AlertState(fingerprint=condition.fingerprint, kind=condition.kind, count=0)
            session.add(row)
        if begins:
            row.began_at, row.resolved_at, row.count = now, None, row.count + 1
        row.subject, row.severity, row.title, row.seen_at = (
            condition.subject,
            condition.severity,
            condition.title,
            now,
        )
        row.details = {
            **condition.details,
            "cause": condition.cause,
            "solution": condition.solution,
            "policy": condition.policy,
            "ended": condition.ended,
            "but": sorted(condition.but),
        }
        session.flush()
        if begins:
            self._notifier.notice(session, _notice(row), but=condition.but)
        return begins

    def end(self, session: Session, fingerprint: str) -> bool:
        """Say that something is over, in the caller's transaction; whether it was on, and its end was told now."""
        row = session.get(AlertState, fingerprint)
        if row is None or row.resolved_at is not None:
            return False
        row.resolved_at = self._clock.now()
        session.flush()
        self._notifier.notice(session, _notice(row, resolved=True), but=frozenset(row.details.get("but", ())))
        return True

    def workers_lost(self, workers: Sequence[str]) -> None:
        """Tell of workers whose jobs were given to others; a worker is named HOST:PID:…. Raises CatalogUnavailable."""
        if not workers:
            return
        with self._catalog.session() as session:
            alone(session)
            for name in workers:
                host, _, rest = name.partition(":")
                pid = rest.partition(":")[0]
                self.begin(session, lost_worker(host, int(pid) if pid.isdecimal() else 0))

    def on(self) -> list[AlertInfo]:
        """The alerts that are on, the worst and oldest first. Raises CatalogUnavailable."""
        with self._catalog.reading() as session:
            rows = session.scalars(select(AlertState).where(AlertState.resolved_at.is_(None)))
            return sorted(map(_info, rows), key=lambda one: (one.severity != "error", one.began_at, one.subject))


def alone(session: Session) -> None:
    """Wait until no other transaction changes alerts; SQLite has one writer anyhow."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _on(kinds: Iterable[NoticeKind]) -> Select[AlertState]:
    return select(AlertState).where(AlertState.resolved_at.is_(None), AlertState.kind.in_(list(kinds)))


def _notice(row: AlertState, *, resolved: bool = False) -> Notice:
    details = row.details
    return Notice(
        severity=cast("Severity", row.severity),
        kind=cast("NoticeKind", row.kind),
        subject=row.subject,
        title=details["ended"] if resolved else row.title,
        cause="" if resolved else details["cause"],
        solution=details["solution"],
        policy=details["policy"],
        schedule=details.get("schedule"),
        resolved=resolved,
    )


def _info(row: AlertState) -> AlertInfo:
    details = row.details
    return AlertInfo(
        kind=row.kind,
        subject=row.subject,
        severity=row.severity,
        title=row.title,
        cause=details["cause"],
        solution=details["solution"],
        policy=details["policy"],
        began_at=row.began_at,
        seen_at=row.seen_at,
        resolved_at=row.resolved_at,
        count=row.count,
    )
