"""Which backups a list shows, and which one a person means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, cast, false, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from backstay.catalog.models import Backup
from backstay.catalog.pages import Order, Page, page_of
from backstay.errors import NotFound
from backstay.repository.selectors import LATEST, MINIMUM_PREFIX, TOLERANCE, choose

_ORDER: Final = Order(name="backups", keys=(Backup.time, Backup.id))
_CANDIDATES: Final = 20  # that an error may tell
_WHOLE: Final = 26  # characters of an id


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFilters:
    """Which backups; None for any. `since` and `until` are of `time`, `text` stands anywhere in the description.

    `scopes` are what somebody may see: `/`, `/policy/NAME` or `/policy/NAME/source/SNAPSHOT_NAME`.
    """

    policy: str | None = None
    source: str | None = None
    type: str | None = None
    host: str | None = None
    tag: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    held: bool | None = None
    damaged: bool | None = None
    verified: bool | None = None  # the last verification went well, or there was none that did
    repository: str | None = None
    scopes: Sequence[str] | None = None


def scope_of(backup: Backup) -> str:
    """What permissions for a backup are asked of."""
    return "/" if backup.policy is None else f"/policy/{backup.policy}/source/{backup.source}"


def backups_page(session: Session, filters: BackupFilters, *, limit: int | None, cursor: str | None) -> Page[Backup]:
    """Backups, newest first. Raises InvalidRequest."""
    return page_of(session, filtered(session, filters), _ORDER, limit=limit, cursor=cursor)


def filtered(session: Session, filters: BackupFilters) -> Select[Backup]:
    """The query of all backups that pass."""
    query = select(Backup)
    for name in ("policy", "source", "type", "host", "held", "damaged", "repository"):
        if (wanted := getattr(filters, name)) is not None:
            query = query.where(getattr(Backup, name) == wanted)
    if filters.since is not None:
        query = query.where(Backup.time >= filters.since)
    if filters.until is not None:
        query = query.where(Backup.time < filters.until)
    if filters.text is not None:
        query = query.where(Backup.description.icontains(filters.text, autoescape=True))
    if filters.tag is not None:
        query = query.where(_has_tag(session, filters.tag))
    if filters.verified is not None:
        good = Backup.verified_ok.is_(True)
        query = query.where(good if filters.verified else or_(Backup.verified_ok.is_(None), ~good))
    if filters.scopes is not None:
        query = query.where(_within(filters.scopes))
    return query


def find_backup(session: Session, text: str, *, now: datetime, scopes: Sequence[str] | None) -> Backup:
    """What `backstay restore TEXT` would take. Raises NotFound, InvalidRequest."""
    text = text.replace("\0", "")
    visible = filtered(session, BackupFilters(scopes=scopes))
    if text == LATEST:
        return _newest(session, visible, text, now)
    if text.startswith(f"{LATEST}:"):
        return _newest(session, visible.where(Backup.source == text.removeprefix(f"{LATEST}:")), text, now)
    if len(text) == _WHOLE and (found := session.scalar(visible.where(Backup.id == text.lower()))) is not None:
        return found
    return _chosen(session, visible, text, now)


@dataclass(frozen=True, slots=True)
class _Selectable:
    row: Backup

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def name(self) -> str | None:
        return self.row.source or None

    @property
    def time(self) -> datetime:
        return self.row.time

    @property
    def paths(self) -> Sequence[bytes]:
        return ()


def _chosen(session: Session, visible: Select[Backup], text: str, now: datetime) -> Backup:
    """By name or the beginning of an id, as in a repository."""
    found: list[Backup] = []
    if text:
        found += session.scalars(_by_time(visible.where(Backup.source == text), now).limit(1))
    if len(text) >= MINIMUM_PREFIX:
        begun = visible.where(Backup.id.startswith(text.lower(), autoescape=True)).order_by(Backup.id)
        found += [row for row in session.scalars(begun.limit(_CANDIDATES)) if row not in found]
    if not found:
        raise _none(text)
    return choose(map(_Selectable, found), text, now=now).row


def _newest(session: Session, query: Select[Backup], text: str, now: datetime) -> Backup:
    found = session.scalar(_by_time(query, now).limit(1))
    if found is None:
        raise _none(text)
    return found


def _by_time(query: Select[Backup], now: datetime) -> Select[Backup]:
    """Newest first; those that claim a time to come are behind all others."""
    later = Backup.time > now.astimezone(UTC) + TOLERANCE
    return query.order_by(later.asc(), Backup.time.desc(), Backup.id.desc())


def _none(text: str) -> NotFound:
    return NotFound(
        f"there is no backup {text!r}",
        cause="no id begins so and nothing has this name",
        hint="`backstay list` shows what there is; what was made elsewhere appears within a few minutes",
    )


def _has_tag(session: Session, tag: str) -> ColumnElement[bool]:
    if session.get_bind().dialect.name == "postgresql":
        return cast(Backup.tags, JSONB).contains([tag])
    each = func.json_each(Backup.tags).table_valued("value")
    one: Any = select(literal_column("1")).select_from(each).where(each.c.value == tag)
    found: ColumnElement[bool] = one.exists()
    return found


def _within(scopes: Sequence[str]) -> ColumnElement[bool]:
    """Whether a backup lies within one of the scopes; one that belongs to no policy lies within `/` alone."""
    allowed: list[ColumnElement[bool]] = []
    for scope in scopes:
        match scope.strip("/").split("/", 3):
            case [""]:
                return Backup.id.is_not(None)
            case ["policy", policy]:
                allowed.append(Backup.policy == policy)
            case ["policy", policy, "source", source]:
                allowed.append(and_(Backup.policy == policy, Backup.source == source))
    return or_(*allowed) if allowed else false()
