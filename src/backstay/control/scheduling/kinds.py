"""What a schedule can run, and the job that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from backstay.catalog.models import ScheduleRecord
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import JobKind
from backstay.codec.digest import sha256
from backstay.core.clock import ns_from_datetime
from backstay.core.ids import new_ulid

ON_CHANGE: Final = "on_change"  # a configuration that is looked at, and backed up only when it has changed
MARK: Final = "mark"  # in its options: the state that was last seen

# Logs and configurations are backups of some sources: what did not change costs next to nothing.
TYPES: Final[Mapping[str, tuple[JobKind, str | None]]] = MappingProxyType(
    {
        "full": ("backup", "full"),
        "incremental": ("backup", "incremental"),
        "differential": ("backup", "differential"),
        "transaction_logs": ("backup", "incremental"),
        "configuration": ("backup", "incremental"),
        ON_CHANGE: ("backup", "incremental"),
        "verification": ("verification", None),
        "prune": ("prune", None),
        "gc": ("gc", None),
        "copy": ("copy", None),
    }
)

OF_REPOSITORY: Final = ("gc", "copy")  # types that are about no policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DueJob:
    """A job for one time of one schedule; whoever makes it gives it the same id."""

    id: str
    kind: JobKind
    policy: str | None
    scope: str
    arguments: Document


def job_of(schedule: ScheduleRecord, time: datetime, sources: Sequence[str]) -> DueJob:
    """What a schedule asks for at a time, of these sources.

    Arguments of a backup: `policy`, `type`, `sources` (names of snapshots, none for all), `retention_days`, `tags` and
    `description`; of the others `policy`, which for `gc` and `copy` there is not.
    """
    kind, backup_kind = TYPES[schedule.type]
    arguments: Document = {"policy": schedule.policy} if schedule.policy else {}
    if backup_kind is not None:
        arguments |= {
            "type": backup_kind,
            "sources": list(sources),
            "retention_days": schedule.retention_days,
            "tags": list(schedule.options.get("tags", ())),
            "description": schedule.options.get("description"),
        }
    return DueJob(
        id=job_id(schedule.id, time),
        kind=kind,
        policy=schedule.policy or None,
        scope=f"/policy/{schedule.policy}" if schedule.policy else "/repository",
        arguments=arguments,
    )


def job_id(schedule: str, time: datetime) -> str:
    """The id of the one job for a schedule and a time: a ULID of that time, the rest of which is no chance."""
    digest = sha256(f"{schedule} {time.isoformat()}".encode())
    return new_ulid(ns_from_datetime(time), lambda size: digest[:size])
