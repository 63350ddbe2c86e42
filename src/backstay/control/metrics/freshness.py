"""How fresh the backups of each source are, and how fresh they should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.models import ScheduleRecord
from backstay.control.metrics.expectations import Expectations, PolicyExpectation
from backstay.control.metrics.pauses import longest_pause
from backstay.control.metrics.sources import SourceFacts, newest

BACKUPS: Final = ("full", "incremental", "differential")  # types of schedules that make backups
_NOTHING: Final = PolicyExpectation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """One source. `newest` is when its newest good backup was made; `rpo` how old that may be, None for no limit.

    `since` is when the first was asked for, where that is known: before, nothing could be there.
    """

    policy: str | None
    source: str
    newest: datetime | None
    rpo: timedelta | None
    since: datetime | None

    def age(self, now: datetime) -> timedelta | None:
        """How old the newest is, or how long one is awaited; None where nothing is known."""
        begin = self.newest or self.since
        return None if begin is None else now - begin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rhythm:
    """The schedule of a policy, or of some of its sources, that comes most often."""

    pause: timedelta
    since: datetime
    sources: frozenset[str]  # empty: all of the policy


def freshness(session: Session, facts: Iterable[SourceFacts], expected: Expectations, now: datetime) -> list[Freshness]:
    """Each source that was ever backed up or should be, by name."""
    good = newest(facts, "good_at")
    rhythms = _rhythms(session, now)
    known = {(policy, source) for policy, holds in expected.policies.items() for source in holds.sources}
    found = []
    for policy, source in sorted(known | good.keys(), key=lambda pair: (pair[1], pair[0] or "")):
        holds = expected.policies.get(policy or "", _NOTHING)
        rhythm = _rhythm_of(source, policy, rhythms.get(policy or "", ()))
        rpo = holds.rpo or (rhythm.pause * expected.factor if rhythm else None)
        found.append(
            Freshness(
                policy=policy,
                source=source,
                newest=good.get((policy, source)),
                rpo=rpo if (policy, source) in known or not expected.policies else None,
                since=rhythm.since if rhythm else None,
            )
        )
    return found


def _rhythms(session: Session, now: datetime) -> Mapping[str, list[_Rhythm]]:
    """The schedules that make backups and are not paused, by policy."""
    rows = session.scalars(
        select(ScheduleRecord).where(ScheduleRecord.enabled.is_(True), ScheduleRecord.type.in_(BACKUPS))
    )
    found: dict[str, list[_Rhythm]] = {}
    for row in rows:
        if row.paused_until is None or row.paused_until <= now:
            pause = longest_pause(row.cron, row.timezone)
            found.setdefault(row.policy, []).append(
                _Rhythm(pause=pause, since=row.created_at, sources=frozenset(row.sources))
            )
    return found


def _rhythm_of(source: str, policy: str | None, rhythms: Iterable[_Rhythm]) -> _Rhythm | None:
    """The one that backs up a source most often. Schedules may name a source with its policy or without."""
    names = {source, source.removeprefix(f"{policy}-")}
    fitting = [one for one in rhythms if not one.sources or one.sources & names]
    return min(fitting, key=lambda one: one.pause, default=None)
