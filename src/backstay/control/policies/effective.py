"""What holds for each policy in the end: its own word, else that of `backup_manager`, else what is built in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final, Literal, TypeAlias

from backstay.control.policies.fire_times import FireTimes
from backstay.control.policies.policy import (
    BackupManagerSettings,
    Policy,
    Retention,
    Schedule,
    Scheduling,
    Verification,
)
from backstay.control.policies.values import zone_of

Origin: TypeAlias = Literal["file", "backup_manager", "built-in"]

# A policy's schedule in the words of `backup_manager`.
SCHEDULING: Final = {
    "full": "full_backup",
    "incremental": "incremental_backup",
    "differential": "differential_backup",
    "transaction_logs": "transaction_logs",
    "configuration": "configuration_backup",
}
INHERITED: Final = ("schedule", "retention", "verification")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What holds for a policy. A block that it has itself replaces that of `backup_manager` as a whole."""

    schedule: Schedule
    retention: Retention | None
    verification: Verification | None

    @property
    def zone(self) -> tzinfo:
        """By whose clocks and calendar its times are meant, and the days, weeks, months and years of its retention."""
        return zone_of(self.schedule.timezone or "UTC")


def next_times(found: Effective, now: datetime) -> dict[str, datetime]:
    """When each kind of backup would come next, in UTC."""
    zone = found.zone
    times = {kind: getattr(found.schedule, kind) for kind in ("full", "incremental", "differential")}
    coming = {kind: FireTimes(text, zone).next(now) for kind, text in times.items() if text is not None}
    return {kind: time for kind, time in coming.items() if time is not None}


def effective(policy: Policy, settings: BackupManagerSettings) -> Effective:
    """What holds for a policy of a file with these settings."""
    scheduling = settings.scheduling or Scheduling()
    own = policy.schedule
    if own is None:
        given = {name: getattr(scheduling, theirs) for name, theirs in SCHEDULING.items()}
        schedule = Schedule(timezone=scheduling.timezone, **given)
    else:
        schedule = own.model_copy(update={"timezone": own.timezone or scheduling.timezone})
    return Effective(
        schedule=schedule,
        retention=policy.retention or settings.retention,
        verification=policy.verification or settings.verification,
    )
