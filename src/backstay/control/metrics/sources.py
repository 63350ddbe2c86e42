"""What the catalog knows of each source that was ever backed up, by one look at all backups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from backstay.catalog.models import Backup

Key: TypeAlias = tuple[str | None, str]  # policy and source


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """The backups of one source in one repository: how many, their bytes, and when the newest of each sort was made.

    `first_good_at` is of the oldest good one. `bad` are damaged, or failed their last verification; `held` cannot be
    deleted.
    """

    repository: str
    policy: str | None
    source: str
    backups: int
    bytes: int
    stored_bytes: int
    held: int
    held_bytes: int
    bad: int
    first_good_at: datetime | None
    good_at: datetime | None
    verified_at: datetime | None
    rehearsed_at: datetime | None
    failed_rehearsal_at: datetime | None

    @property
    def key(self) -> Key:
        return self.policy, self.source


def facts_of_sources(session: Session) -> list[SourceFacts]:
    """One scan of the table: 100 000 backups take about a tenth of a second."""
    good = Backup.damaged.is_(False)
    found = session.execute(
        select(
            Backup.repository,
            Backup.policy,
            Backup.source,
            func.count(),
            _total(Backup.bytes),
            _total(Backup.stored_bytes),
            _number(Backup.held.is_(True)),
            func.coalesce(func.sum(case((Backup.held.is_(True), Backup.bytes), else_=0)), 0),
            _number(or_(Backup.damaged.is_(True), Backup.verified_ok.is_(False))),
            func.min(case((good, Backup.time)), type_=Backup.time.type),
            _newest(Backup.time, good),
            _newest(Backup.verified_at, and_(good, Backup.verified_ok.is_(True))),
            _newest(Backup.rehearsed_at, Backup.rehearsed_ok.is_(True)),
            _newest(Backup.rehearsed_at, Backup.rehearsed_ok.is_(False)),
        ).group_by(Backup.repository, Backup.policy, Backup.source)
    )
    return [
        SourceFacts(
            repository=repository,
            policy=policy,
            source=source,
            backups=backups,
            bytes=int(size),
            stored_bytes=int(stored),
            held=int(held),
            held_bytes=int(held_bytes),
            bad=int(bad),
            first_good_at=first_good_at,
            good_at=good_at,
            verified_at=verified_at,
            rehearsed_at=rehearsed_at,
            failed_rehearsal_at=failed_at,
        )
        for (
            repository, policy, source, backups, size, stored, held, held_bytes, bad, first_good_at, good_at,
            verified_at, rehearsed_at, failed_at,
        ) in found
    ]  # fmt: skip


def newest(facts: Iterable[SourceFacts], what: str) -> Mapping[Key, datetime]:
    """The newest of one of the times, by policy and source: a repository that was replaced counts with the new one."""
    found: dict[Key, datetime] = {}
    for one in facts:
        at: datetime | None = getattr(one, what)
        if at is not None:
            found[one.key] = max(at, found.get(one.key, at))
    return found


def _total(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(column), 0)


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _newest(
    moment: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None], condition: ColumnElement[bool]
) -> ColumnElement[datetime | None]:
    return func.max(case((condition, moment)), type_=Backup.time.type)
