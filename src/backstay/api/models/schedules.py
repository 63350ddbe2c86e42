"""Schedules: when which policy runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, StringConstraints
from typing_extensions import TypedDict

from backstay.api.models.backups import Sources
from backstay.api.models.base import Asked, Line, Moment, Paged, Prose

ScheduleType = Literal[
    "full",
    "incremental",
    "differential",
    "transaction_logs",
    "configuration",
    "verification",
    "prune",
    "gc",
    "copy",
]
Cron = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    Field(validation_alias=AliasChoices("cron", "cron_expression")),
]


class AskedSchedule(Asked):
    """A schedule, whole: what is left out gets its default."""

    name: Line
    cron: Cron
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    type: Annotated[ScheduleType, Field(validation_alias=AliasChoices("type", "backup_type"))] = "incremental"
    policy: Annotated[Line | None, Field(description="none for `gc` and `copy`")] = None
    sources: Sources
    enabled: bool = True
    coalesce: Annotated[bool, Field(description="run once for all times that were missed")] = True
    misfire_grace_s: Annotated[int | None, Field(ge=0, le=366 * 86_400)] = None
    jitter_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    retention_days: Annotated[int | None, Field(ge=1, le=36_500)] = None
    tags: Annotated[list[Line], Field(max_length=50, default_factory=list)]
    description: Prose | None = None


class PauseSchedule(Asked):
    """For how long, and why."""

    until: Moment | None = None
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class ScheduleQuery(Paged):
    """Which schedules; what is left out does not choose."""

    policy: Line | None = None
    type: ScheduleType | None = None
    origin: Literal["file", "api"] | None = None
    enabled: bool | None = None


class PreviewQuery(Paged):
    """How many times."""

    n: Annotated[int, Field(ge=1, le=100)] = 5


class ScheduleDocument(TypedDict):
    """A schedule. `origin` is `file` for those of the policy file; `next_run_at` is null when it will not run."""

    id: str
    name: str
    origin: str
    policy: str | None
    type: str
    sources: list[str]
    cron: str
    timezone: str
    enabled: bool
    coalesce: bool
    misfire_grace_s: int | None
    jitter_s: int
    retention_days: int | None
    tags: list[str]
    description: str | None
    paused: bool
    paused_until: datetime | None
    paused_reason: str | None
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: str | None
    last_missed: str | None
    created_at: datetime
    updated_at: datetime


class Times(TypedDict):
    """The next times at which something will run."""

    times: list[datetime]
