"""The audit log: who did what and what was refused, each row bound by its hash to all before it.

An entry is part of the transaction of what it tells: both are there or neither. It is appended when the transaction
ends, under a lock that all processes share, so that the rows form one chain whoever writes them; what takes the lock
last can wait for nobody who waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import event, insert, select
from sqlalchemy.orm import Session

from backstay.catalog.audit_chain import FIRST, entry_hash
from backstay.catalog.audit_verifying import AuditVerdict, departure, verify
from backstay.catalog.checkpoints import Checkpoint, add_checkpoint
from backstay.catalog.database import Catalog
from backstay.catalog.discretion import discreet, discreet_document
from backstay.catalog.locking import take
from backstay.catalog.models import AuditEntry
from backstay.catalog.pages import Order, Page, page_of
from backstay.core.clock import Clock
from backstay.trust.signing import Signer

Outcome: TypeAlias = Literal["allow", "deny", "error"]

_ORDER: Final = Order(name="audit", keys=(AuditEntry.seq,))
_WAITING: Final = "backstay.audit"  # in a session's `info`: entries that are not written yet


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilters:
    """Which entries; None for any. `object` is the beginning of one."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditLog:
    """Appends and shows entries; nobody changes or deletes them, which the database itself refuses."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock

    def record(
        self,
        session: Session,
        *,
        actor: str,
        action: str,
        object: str,  # noqa: A002 - the word of the log
        outcome: Outcome = "allow",
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        actor_details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry to a transaction of `Catalog.session`. Secrets are left out of what is given."""
        session.connection()  # begins the transaction, whose end is told to us
        waiting = session.info.get(_WAITING)
        if waiting is None:
            waiting = session.info[_WAITING] = []
            event.listen(session, "before_commit", _append)
            event.listen(session, "after_rollback", _forget)
        waiting.append(
            {
                "time": self._clock.now().astimezone(UTC),
                "actor": discreet(actor, 255),
                "actor_details": discreet_document(actor_details or {}),
                "action": action,
                "object": discreet(object, 512),
                "outcome": outcome,
                "reason": discreet(reason),
                "details": discreet_document(details or {}),
            }
        )

    def note(self, **entry: Any) -> None:  # noqa: ANN401 - as `record` takes them
        """Add an entry that tells of nothing else in the catalog, such as a refusal."""

        def work(session: Session) -> None:
            self.record(session, **entry)

        self._catalog.transact(work)

    def verify(self, *, kept: Sequence[Checkpoint] = (), trusted: Collection[str] | None = None) -> AuditVerdict:
        """Whether the chain is whole and as all checkpoints saw it: those of the catalog, and those that were kept.

        `trusted` are the public keys that may have signed, in hexadecimal; None for any.
        """
        with self._catalog.reading() as session:
            return verify(session, kept=kept, trusted=trusted)

    def departure(self, kept: Sequence[Checkpoint]) -> str:
        """How the log is not what the newest checkpoint that was kept saw, seen at one look; nothing if it is."""
        with self._catalog.reading() as session:
            return departure(session, kept)

    def checkpoint(self, signer: Signer) -> Checkpoint | None:
        """Sign the head of the log; None when it has a checkpoint already, or no entries."""
        now = self._clock.now()
        return self._catalog.transact(lambda session: add_checkpoint(session, signer, now))

    def page(
        self, filters: AuditFilters | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[AuditEntry]:
        """Entries, newest first. Raises InvalidRequest."""
        filters = filters or AuditFilters()
        query = select(AuditEntry)
        for column in ("actor", "action", "outcome"):
            if (wanted := getattr(filters, column)) is not None:
                query = query.where(getattr(AuditEntry, column) == wanted)
        if filters.object is not None:
            query = query.where(AuditEntry.object.startswith(filters.object, autoescape=True))
        if filters.since is not None:
            query = query.where(AuditEntry.time >= filters.since)
        if filters.until is not None:
            query = query.where(AuditEntry.time < filters.until)
        with self._catalog.reading() as session:
            return page_of(session, query, _ORDER, limit=limit, cursor=cursor)


def _forget(session: Session) -> None:
    """What is told did not happen."""
    session.info[_WAITING] = []


def _append(session: Session) -> None:
    """Write what waits, as the last thing that the transaction does."""
    waiting, session.info[_WAITING] = session.info[_WAITING], []
    if not waiting:
        return
    session.flush()  # what the caller changed comes first: its locks are taken before ours
    take(session, "audit")
    last = session.execute(select(AuditEntry.seq, AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)).first()
    seq, above = (last.seq, last.hash) if last is not None else (0, FIRST)
    for entry in waiting:
        seq += 1
        row = {**entry, "seq": seq, "prev_hash": above}
        above = entry_hash(row)
        session.execute(insert(AuditEntry).values(**row, hash=above))
