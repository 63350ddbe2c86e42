"""Which backups a list shows, and which one a person means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, cast, false, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from backstay.catalog.models import Backup
from backstay.catalog.pages import Order, Page
from backstay.catalog.records import Listing, Records
from backstay.errors import NotFound
from backstay.repository.snapshots.selectors import LATEST, MINIMUM_PREFIX, TOLERANCE, choose

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
    job_id: str | None = None
    scopes: Sequence[str] | None = None


def scope_of(backup: Backup) -> str:
    """What permissions for a backup are asked of."""
    return "/" if backup.policy is None else f"/policy/{backup.policy}/source/{backup.source}"


def _conditions(filters: BackupFilters, dialect: str) -> list[ColumnElement[bool]]:
    """What backups must be to pass."""
    found: list[ColumnElement[bool]] = []
    for name in _EQUAL:
        if getattr(filters, name) is not None:
            column = getattr(Backup, name)
            found.append(column == bindparam(name, type_=column.type))
    if filters.since is not None:
        found.append(Backup.time >= bindparam("since", type_=Backup.time.type))
    if filters.until is not None:
        found.append(Backup.time < bindparam("until", type_=Backup.time.type))
    if filters.text is not None:
        found.append(Backup.description.icontains(filters.text, autoescape=True))
    if filters.tag is not None:
        found.append(_has_tag(dialect, filters.tag))
    if filters.verified is not None:
        good = Backup.verified_ok.is_(True)
        found.append(good if filters.verified else or_(Backup.verified_ok.is_(None), ~good))
    if filters.scopes is not None:
        found.append(_within(filters.scopes))
    return found


_EQUAL: Final = ("policy", "source", "type", "host", "held", "damaged", "repository", "job_id")
_RECORDS: Final = Records(Backup)
_LISTING: Final = Listing(_RECORDS, _ORDER, _conditions, filters=BackupFilters, free=(*_EQUAL, "since", "until"))


def backups_page(
    connection: Connection, filters: BackupFilters, *, limit: int | None, cursor: str | None
) -> Page[Backup]:
    """Records of backups, newest first. Raises InvalidRequest."""
    return _LISTING.page(connection, filters, limit=limit, cursor=cursor)


def backup_of_id(connection: Connection, text: str, *, scopes: Sequence[str] | None) -> Backup | None:
    """The record of the backup that has this whole id, as far as scopes reach."""
    if len(text) != _WHOLE or "\0" in text:
        return None
    query = _by_id(None if scopes is None else tuple(sorted(scopes)))
    found = _RECORDS.of(connection.execute(query, {"id": text.lower()}))
    return found[0] if found else None


@lru_cache(maxsize=256)
def _by_id(scopes: tuple[str, ...] | None) -> Select[Any]:
    query = _RECORDS.all.where(Backup.id == bindparam("id", type_=Backup.id.type))
    return query if scopes is None else query.where(_within(scopes))


def find_backup(session: Session, text: str, *, now: datetime, scopes: Sequence[str] | None) -> Backup:
    """What `backstay restore TEXT` would take, where it is no whole id. Raises NotFound, InvalidRequest."""
    text = text.replace("\0", "")
    visible = select(Backup)
    if scopes is not None:
        visible = visible.where(_within(scopes))
    if text == LATEST:
        return _newest(session, visible, text, now)
    if text.startswith(f"{LATEST}:"):
        return _newest(session, visible.where(Backup.source == text.removeprefix(f"{LATEST}:")), text, now)
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


def _has_tag(dialect: str, tag: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
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
