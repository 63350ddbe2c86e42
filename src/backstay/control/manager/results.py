"""What the manager's operations tell: runs, restores, plans of restores, checks. Times are aware, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from backstay.control.manager.backups import Backup
from backstay.control.runs.run import PolicyOutcome
from backstay.errors import BackstayError, CorruptedBackup, ObjectNotFound, RestoreFailed
from backstay.operations.findings import Check, Finding
from backstay.operations.restore.tally import FailedItem

TargetKind: TypeAlias = Literal["files", "database", "cluster"]
RestoreMode: TypeAlias = Literal["beside", "in_place"]
RunStatus: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TimeBasis: TypeAlias = Literal["history", "assumption"]

_DAMAGE = (CorruptedBackup.code, ObjectNotFound.code)  # the repository is to blame, not the target


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRun:
    """One run of a policy: the backups that it made, and what became of each of its stages.

    `error` is the first failure, which `execute` raises unless it is told not to. `notices` are what nobody must miss:
    where the key lies of a repository that was made.
    """

    id: str
    policy: str
    dry_run: bool
    backups: tuple[Backup, ...]
    outcome: PolicyOutcome
    started_at: datetime
    duration_s: float
    notices: tuple[str, ...] = ()

    @property
    def error(self) -> BackstayError | None:
        errors = self.outcome.errors
        return errors[0] if errors else None

    @property
    def ok(self) -> bool:
        """Whether all went well; items of sources that could not be read do not count against that."""
        return self.outcome.went_well


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredPart:
    """What was restored of one backup into one target; `source`, `schemas` and `tables` are what was asked for of it.

    Of `objects` of a dump so many are `findable` afterwards by their names.

    `unchanged` items were there already. `errors` are items that are not restored, `problems` what could not be set of
    items that are.
    """

    backup_id: str
    kind: TargetKind
    target: str
    source: str | None = None
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    files: int = 0
    dirs: int = 0
    bytes: int = 0
    objects: int = 0
    findable: int = 0
    unchanged: int = 0
    skipped: int = 0
    renamed: int = 0
    deleted: int = 0
    verified: int = 0
    errors: tuple[FailedItem, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRun:
    """One restore, of one or several backups."""

    id: str
    mode: RestoreMode
    parts: tuple[RestoredPart, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    started_at: datetime
    duration_s: float

    @property
    def ok(self) -> bool:
        return not any(part.errors for part in self.parts)

    def raise_failure(self) -> None:
        """Raises CorruptedBackup or RestoreFailed when an item could not be restored."""
        errors = [item for part in self.parts for item in part.errors]
        if not errors:
            return
        damaged = any(item.code in _DAMAGE for item in errors)
        told = ", ".join(f"{item.path}: {item.message}" for item in errors[:3])
        raise (CorruptedBackup if damaged else RestoreFailed)(f"{len(errors)} items were not restored", cause=told)

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """What would be restored of one backup. `conflicts` and `deletions` are the first of as many as the counts say.

    `room` is what is free where it would go, None where nobody can tell.
    """

    backup_id: str
    kind: TargetKind
    target: str
    files: int = 0
    dirs: int = 0
    bytes: int = 0
    objects: int = 0
    unchanged: int = 0
    conflicts: tuple[str, ...] = ()
    conflict_count: int = 0
    deletions: tuple[str, ...] = ()
    deletion_count: int = 0
    room: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.room is None or self.bytes <= self.room

    def as_if_done(self) -> RestoredPart:
        """The same as a restore would have told it."""
        return RestoredPart(
            backup_id=self.backup_id,
            kind=self.kind,
            target=self.target,
            files=self.files,
            dirs=self.dirs,
            bytes=self.bytes,
            objects=self.objects,
            unchanged=self.unchanged,
            problems=self.warnings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePreview:
    """What a restore would do. `seconds` is about how long it takes, by earlier restores or by an assumed speed."""

    parts: tuple[PlannedPart, ...]
    conflict: str
    seconds: float
    based_on: TimeBasis

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def conflicts(self) -> tuple[str, ...]:
        return tuple(path for part in self.parts for path in part.conflicts)

    @property
    def conflict_count(self) -> int:
        return sum(part.conflict_count for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether there is room for all of it."""
        return all(part.fits for part in self.parts)

    @property
    def refused(self) -> bool:
        """Whether the restore itself would raise RestoreConflict."""
        return self.conflict == "fail" and self.conflict_count > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRecord:
    """A restore as it was recorded; `error` is a problem document."""

    id: str
    status: RunStatus
    backups: tuple[str, ...]
    targets: tuple[str, ...]
    created_at: datetime
    finished_at: datetime | None
    files: int
    bytes: int
    error: dict[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPassed:
    """A check that found nothing wrong; `details` says what was looked at."""

    check: Check
    details: str
    ok: Literal[True] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFailed:
    """A check that found something; `error` tells the first of its findings."""

    check: Check
    error: str
    findings: tuple[Finding, ...]
    details: str = ""
    ok: Literal[False] = False


CheckOutcome: TypeAlias = CheckPassed | CheckFailed
