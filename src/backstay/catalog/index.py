"""The catalog's list of backups, which follows the snapshots of a repository.

The repository is what counts. A refresh lists it and reads only what the catalog does not know yet; everything that it
changes comes from there, so that one which is interrupted, comes late, or runs twice at once is put right by the next.
Whoever makes a snapshot tells so after the commit: a crash in between leaves one that the next refresh finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backstay.catalog.backup_rows import put, row_of, row_of_damaged
from backstay.catalog.backup_search import BackupFilters, backup_of_id, backups_page, find_backup
from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup, PassedOver
from backstay.catalog.pages import Page
from backstay.core.clock import Clock
from backstay.errors import BackstayError, CorruptedBackup, UnsupportedFormat
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import FenceRecord, Manifest, is_values

_AT_ONCE: Final = 500  # rows in one statement: SQLite takes so many parameters

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh changed: how many backups came and went, which cannot be read, and how many were read at all."""

    added: int
    removed: int
    held: int
    damaged: tuple[str, ...]
    read: int


class BackupIndex:
    """Lists and finds backups, and keeps the list up to date."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock

    # -- look

    def page(
        self, filters: BackupFilters | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[Backup]:
        """Records of backups, newest first. Raises InvalidRequest."""
        with self._catalog.looking() as connection:
            return backups_page(connection, filters or BackupFilters(), limit=limit, cursor=cursor)

    def get(self, text: str, *, scopes: Sequence[str] | None = None) -> Backup:
        """The one backup of an id, the beginning of one, a name, `latest` or `latest:NAME`, as far as scopes reach.

        Only to be looked at. Raises NotFound, InvalidRequest.
        """
        with self._catalog.looking() as connection:
            if (found := backup_of_id(connection, text, scopes=scopes)) is not None:
                return found
        with self._catalog.reading() as session:
            return find_backup(session, text, now=self._clock.now(), scopes=scopes)

    # -- follow

    def refresh(self, repository: Repository, *, policies: Mapping[str, str] | None = None) -> Refreshed:
        """Make the list that of the repository; `policies` has the policy of each snapshot's name.

        Raises CatalogUnavailable, StorageUnavailable.
        """
        return _Refresh(self._catalog, repository, policies or {}).whole()

    def rebuild(self, repository: Repository, *, policies: Mapping[str, str] | None = None) -> Refreshed:
        """Read every snapshot anew; what only the catalog knows of them, such as when they were verified, stays."""
        with self._catalog.session() as session:
            session.execute(delete(PassedOver).where(PassedOver.repository == repository.header.uuid))
        return _Refresh(self._catalog, repository, policies or {}, everything=True).whole()

    def made(
        self, repository: Repository, ids: Sequence[str], *, job_id: str | None = None, policy: str | None = None
    ) -> None:
        """Add snapshots that were just made. Raises NotFound, CorruptedBackup."""
        held = repository.snapshots.holds.held(ids)
        manifests = [repository.snapshots.get(ulid) for ulid in ids]
        rows = [row_of(one, repository.header.uuid, policy=policy, held=one.id in held) for one in manifests]
        with self._catalog.session() as session:
            put(session, rows)
            if job_id is not None and ids:
                session.execute(update(Backup).where(Backup.id.in_(ids)).values(job_id=job_id))

    def removed(self, session: Session, repository: Repository, ids: Iterable[str]) -> None:
        """Forget snapshots that were just deleted, in a transaction that may tell of it too."""
        for some in _batches(list(ids)):
            session.execute(delete(Backup).where(Backup.id.in_(some)))
            _pass_over(session, [_passed(ulid, repository.header.uuid, "dropped") for ulid in some])


@dataclass(slots=True)
class _Refresh:
    """One refresh: what is known, what there is, what is new, and one transaction for each part of the difference."""

    catalog: Catalog
    repository: Repository
    policies: Mapping[str, str]
    everything: bool = False

    def whole(self) -> Refreshed:
        known, passed = self._known()  # first: whatever is added later is in the listing too
        store, uuid = self.repository.snapshots, self.repository.header.uuid
        taken = set(store.taken())
        # Drops are listed after the snapshots, holds after the drops: see `repository.holds`.
        dropped = store.dropped((taken | known.keys()) - passed, _pass)
        held = set(store.holds.held(on_damage=_pass))
        unread = taken - passed - dropped
        if not self.everything:
            unread -= {ulid for ulid, row in known.items() if not row.damaged}
        lost = known.keys() - taken - dropped
        gone = known.keys() & dropped
        fresh, damaged, others = self._read(sorted(unread), held)
        others += [_passed(ulid, uuid, "dropped") for ulid in sorted(dropped)]
        changed = [
            ulid for ulid in known.keys() - gone - lost if known[ulid].held != (ulid in held) and ulid not in unread
        ]
        for rows in _batches(fresh):
            with self.catalog.session() as session:
                put(session, rows)
        with self.catalog.session() as session:
            self._mark(session, damaged, known, lost, held)
            for some in _batches(sorted(gone)):
                session.execute(delete(Backup).where(Backup.id.in_(some)))
            for some in _batches(changed):
                self._hold(session, some, held)
            _pass_over(session, others)
            self._name_policies(session)
        return Refreshed(
            added=len({row["id"] for row in fresh} - known.keys()),
            removed=len(gone),
            held=len(changed),
            damaged=tuple(sorted({*damaged, *lost})),
            read=len(unread),
        )

    def _known(self) -> tuple[dict[str, Any], set[str]]:
        uuid = self.repository.header.uuid
        with self.catalog.reading() as session:
            rows = session.execute(select(Backup.id, Backup.held, Backup.damaged).where(Backup.repository == uuid))
            known = {row.id: row for row in rows}
            return known, set(session.scalars(select(PassedOver.id).where(PassedOver.repository == uuid)))

    def _read(self, ids: Iterable[str], held: set[str]) -> tuple[list[dict[str, Any]], list[str], list[dict[str, str]]]:
        """Rows of snapshots, ids of what cannot be read, and what is no backup at all."""
        uuid = self.repository.header.uuid
        rows, damaged, others = [], [], []
        for ulid in ids:
            try:
                found = self.repository.snapshots.outcome(ulid)
            except CorruptedBackup:
                damaged.append(ulid)
                continue
            except UnsupportedFormat:
                continue  # of a newer program, which will tell more of it
            if isinstance(found, FenceRecord):
                others.append(_passed(ulid, uuid, "fenced"))
            elif isinstance(found, Manifest) and is_values(found):
                others.append(_passed(ulid, uuid, "values"))
            elif isinstance(found, Manifest):
                rows.append(row_of(found, uuid, policy=self.policies.get(found.name or ""), held=ulid in held))
        return rows, damaged, others

    def _mark(
        self, session: Session, damaged: Sequence[str], known: Mapping[str, Any], lost: Iterable[str], held: set[str]
    ) -> None:
        """Tell of what cannot be read, or is gone without having been deleted."""
        for some in _batches([*(ulid for ulid in damaged if ulid in known), *lost]):
            session.execute(update(Backup).where(Backup.id.in_(some)).values(damaged=True))
        uuid = self.repository.header.uuid
        put(session, [row_of_damaged(ulid, uuid, held=ulid in held) for ulid in damaged if ulid not in known])

    @staticmethod
    def _hold(session: Session, ids: Sequence[str], held: set[str]) -> None:
        for state in (True, False):
            some = [ulid for ulid in ids if (ulid in held) is state]
            session.execute(update(Backup).where(Backup.id.in_(some)).values(held=state))

    def _name_policies(self, session: Session) -> None:
        """Backups that came before their policy was known, such as those made by hand."""
        uuid = self.repository.header.uuid
        nameless = session.scalars(
            select(Backup.source).where(Backup.repository == uuid, Backup.policy.is_(None)).distinct()
        ).all()
        for name in sorted(set(nameless) & self.policies.keys()):
            session.execute(
                update(Backup)
                .where(Backup.repository == uuid, Backup.policy.is_(None), Backup.source == name)
                .values(policy=self.policies[name])
            )


def _pass(name: str, error: BackstayError) -> None:
    """A drop or hold that cannot be read deletes and clears nothing; `backstay verify` tells of it."""
    del name, error


def _passed(ulid: str, repository: str, why: str) -> dict[str, str]:
    return {"id": ulid, "repository": repository, "why": why}


def _pass_over(session: Session, rows: Sequence[dict[str, str]]) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    for some in _batches(rows):
        session.execute(insert(PassedOver).on_conflict_do_nothing(), list(some))


def _batches(items: Sequence[ItemT]) -> Iterator[Sequence[ItemT]]:
    return (items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE))
