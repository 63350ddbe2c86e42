"""The schedules that a policy file says, as rows beside those that people make.

Each has an id made from its policy and its type, so that several hosts which read the same file have the same rows. A
file that says the same again changes nothing: the next time stays what it is, and so does a pause.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.locking import take
from backstay.catalog.models import ScheduleRecord
from backstay.codec.digest import sha256
from backstay.control.policies.effective import Effective, effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import Policy
from backstay.control.scheduling.kinds import ON_CHANGE
from backstay.control.scheduling.timing import set_next
from backstay.control.scheduling.work import configuration_of, databases_of
from backstay.core.ids import new_ulid

_BACKUPS: Final = ("full", "incremental", "differential")
_EACH_MINUTE: Final = "* * * * *"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedSchedules:
    """How many schedules of the file are new, changed, gone, and as they were."""

    added: int
    changed: int
    disabled: int
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSchedule:
    """What a policy file says of one type of run."""

    policy: str
    type: str
    cron: str
    timezone: str
    sources: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        digest = sha256(f"{self.policy}\0{self.type}".encode())
        return new_ulid(0, lambda size: digest[:size])


def said(loaded: LoadedPolicies) -> Iterator[FileSchedule]:
    """All schedules of a file."""
    for name, policy in loaded.content.policies.items():
        yield from _of_policy(name, policy, effective(policy, loaded.content.backup_manager))


def sync(session: Session, loaded: LoadedPolicies | None, now: datetime) -> SyncedSchedules:
    """Make the rows of the file what it says; the rows of what it no longer says are disabled and stay."""
    take(session, "schedules of the policy file")  # several hosts may read it at once
    rows = {row.id: row for row in session.scalars(select(ScheduleRecord).where(ScheduleRecord.origin == "file"))}
    added = changed = unchanged = disabled = 0
    for wanted in said(loaded) if loaded is not None else ():
        row = rows.pop(wanted.id, None)
        if row is None:
            session.add(_new(wanted, now))
            added += 1
        elif _take(row, wanted, now):
            changed += 1
        else:
            unchanged += 1
    for row in rows.values():
        if row.enabled:
            row.enabled = False
            row.last_missed = "the policy file no longer has it"
            set_next(row, now, now)
            _touched(row, now)
            disabled += 1
    session.flush()
    return SyncedSchedules(added=added, changed=changed, disabled=disabled, unchanged=unchanged)


def _of_policy(name: str, policy: Policy, holds: Effective) -> Iterator[FileSchedule]:
    times, zone = holds.schedule, holds.schedule.timezone or "UTC"
    for kind in _BACKUPS:
        if (cron := getattr(times, kind)) is not None:
            yield FileSchedule(policy=name, type=kind, cron=cron, timezone=zone)
    if times.transaction_logs is not None and (found := databases_of(name, policy)):
        yield FileSchedule(
            policy=name, type="transaction_logs", cron=times.transaction_logs, timezone=zone, sources=found
        )
    if times.configuration is not None:
        yield from _of_configuration(name, policy, times.configuration, zone)
    checks = holds.verification
    if checks is not None and checks.enabled and checks.schedule is not None:
        yield FileSchedule(policy=name, type="verification", cron=checks.schedule, timezone=zone)


def _of_configuration(name: str, policy: Policy, cron: str, zone: str) -> Iterator[FileSchedule]:
    watched = configuration_of(name, policy)
    if not watched or (cron == ON_CHANGE and policy.agent is not None):  # an agent's files are not seen from here
        return
    kind = "configuration"
    if cron == ON_CHANGE:
        kind, cron = ON_CHANGE, _EACH_MINUTE
    yield FileSchedule(policy=name, type=kind, cron=cron, timezone=zone, sources=watched)


def _new(wanted: FileSchedule, now: datetime) -> ScheduleRecord:
    row = ScheduleRecord(
        id=wanted.id,
        name=f"{wanted.policy}: {wanted.type}",
        origin="file",
        policy=wanted.policy,
        type=wanted.type,
        enabled=True,
        coalesce=True,
        jitter_s=0,
        options={},
        created_at=now,
        updated_at=now,
        version=1,
    )
    _set(row, wanted)
    set_next(row, now, now)
    return row


def _take(row: ScheduleRecord, wanted: FileSchedule, now: datetime) -> bool:
    """Let a row say what the file says; whether it said something else."""
    same_time = (row.cron, row.timezone, row.enabled) == (wanted.cron, wanted.timezone, True)
    if same_time and tuple(row.sources) == wanted.sources:
        return False
    _set(row, wanted)
    row.enabled = True
    if not same_time:
        set_next(row, now, now)
    _touched(row, now)
    return True


def _set(row: ScheduleRecord, wanted: FileSchedule) -> None:
    row.cron, row.timezone = wanted.cron, wanted.timezone
    row.sources = list(wanted.sources)


def _touched(row: ScheduleRecord, now: datetime) -> None:
    row.updated_at = now
    row.version += 1
