"""Whether the audit log is what was written: each entry by its hash, the chain by its links, the end by checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import RowMapping, select
from sqlalchemy.orm import Session

from backstay.catalog.audit_chain import FIELDS, FIRST, entry_hash
from backstay.catalog.checkpoints import Checkpoint, stored_checkpoints
from backstay.catalog.models import AuditEntry
from backstay.errors import BackstayError

_AT_ONCE: Final = 500
_COLUMNS: Final = tuple(getattr(AuditEntry, name) for name in (*FIELDS, "prev_hash", "hash"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What was found. `broken` is the number of the first entry that is not as it was written, and `problem` says why.

    `head` is the hash of the last good entry, `checkpoints` how many agree, `keys` who signed them.
    """

    ok: bool
    entries: int
    head: str
    checkpoints: int
    keys: tuple[str, ...]
    broken: int | None = None
    problem: str = ""


class _Broken(Exception):
    """The first entry that is not as it was."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq, self.problem = seq, problem


def verify(
    session: Session, *, kept: Sequence[Checkpoint] = (), trusted: Collection[str] | None = None
) -> AuditVerdict:
    """Walk the whole log."""
    walk = _Walk(session, [*stored_checkpoints(session), *kept], trusted)
    try:
        walk.whole()
    except _Broken as broken:
        return walk.verdict(broken)
    return walk.verdict(None)


def departure(session: Session, kept: Sequence[Checkpoint]) -> str:
    """How the log is not what the newest of these checkpoints saw; nothing if it is. It takes one look."""
    newest = max((one for one in kept if one.is_genuine), key=lambda one: one.seq, default=None)
    if newest is None:
        return ""
    found = session.scalar(select(AuditEntry.hash).where(AuditEntry.seq == newest.seq))
    if found is None:
        return f"it has no entry {newest.seq}, but had at a checkpoint of {_when(newest)}"
    return "" if found == newest.hash else f"the checkpoint of {_when(newest)} saw another entry {newest.seq}"


@dataclass(slots=True)
class _Walk:
    session: Session
    checkpoints: Sequence[Checkpoint]
    trusted: Collection[str] | None
    seq: int = 0
    head: str = FIRST
    agreed: int = 0
    keys: list[str] = field(default_factory=list)

    def whole(self) -> None:
        seen: dict[int, list[Checkpoint]] = {}
        for checkpoint in self.checkpoints:
            seen.setdefault(checkpoint.seq, []).append(checkpoint)
        for row in _rows(self.session):
            self._follow(row)
            for checkpoint in seen.pop(self.seq, ()):
                self._compare(checkpoint)
        if seen:
            last = max(seen)
            when = _when(seen[last][0])
            raise _Broken(self.seq + 1, f"the log ends with entry {self.seq}, but had {last} at a checkpoint of {when}")

    def _follow(self, row: RowMapping) -> None:
        due = self.seq + 1
        if row["seq"] != due:
            lies = f"entry {due} is missing" if row["seq"] > due else f"entry {row['seq']} was put before all"
            raise _Broken(due, lies)
        if row["prev_hash"] != self.head:
            raise _Broken(due, f"entry {due} does not follow the one before it")
        try:
            right = entry_hash(row) == row["hash"]
        except (BackstayError, ValueError, TypeError, KeyError):
            right = False
        if not right:
            raise _Broken(due, f"entry {due} was changed")
        self.seq, self.head = due, row["hash"]

    def _compare(self, checkpoint: Checkpoint) -> None:
        told = f"the checkpoint of {_when(checkpoint)} at entry {checkpoint.seq}"
        if not checkpoint.is_genuine:
            raise _Broken(checkpoint.seq, f"the signature of {told} is not valid")
        if self.trusted is not None and checkpoint.public_key not in self.trusted:
            raise _Broken(checkpoint.seq, f"{told} was signed by a key that is not trusted: {checkpoint.public_key}")
        if checkpoint.hash != self.head:
            raise _Broken(checkpoint.seq, f"{told} saw another entry: this one or one before it was made anew")
        self.agreed += 1
        if checkpoint.public_key not in self.keys:
            self.keys.append(checkpoint.public_key)

    def verdict(self, broken: _Broken | None) -> AuditVerdict:
        return AuditVerdict(
            ok=broken is None,
            entries=self.seq,
            head=self.head,
            checkpoints=self.agreed,
            keys=tuple(self.keys),
            broken=None if broken is None else broken.seq,
            problem="" if broken is None else broken.problem,
        )


def _rows(session: Session) -> Iterator[RowMapping]:
    """All entries by number."""
    last: int | None = None
    while True:
        query = select(*_COLUMNS).order_by(AuditEntry.seq).limit(_AT_ONCE)
        if last is not None:
            query = query.where(AuditEntry.seq > last)
        try:
            rows = session.execute(query).mappings().all()
        except (ValueError, TypeError):  # a value that its column cannot hold: which row has it is looked for
            yield from _one_by_one(session, last)
            return
        yield from rows
        if len(rows) < _AT_ONCE:
            return
        last = rows[-1]["seq"]


def _one_by_one(session: Session, last: int | None) -> Iterator[RowMapping]:
    numbers = select(AuditEntry.seq).order_by(AuditEntry.seq)
    for seq in session.scalars(numbers if last is None else numbers.where(AuditEntry.seq > last)).all():
        try:
            row = session.execute(select(*_COLUMNS).where(AuditEntry.seq == seq)).mappings().one()
        except (ValueError, TypeError) as error:
            raise _Broken(seq, f"entry {seq} was changed: {error}") from error
        yield row


def _when(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.time:%Y-%m-%d %H:%M} UTC"
