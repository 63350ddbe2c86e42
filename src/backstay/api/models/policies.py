"""Policies, their sources, and what their retention would do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line, Moment

Count = Annotated[int | None, Field(ge=0, le=1_000_000)]


class AskedRules(Asked):
    """Which backups stay; one that any rule keeps stays."""

    keep_last: Count = None
    keep_hourly: Count = None
    keep_daily: Count = None
    keep_weekly: Count = None
    keep_monthly: Count = None
    keep_yearly: Count = None
    keep_within: Annotated[str | None, StringConstraints(min_length=1, max_length=32)] = None
    keep_tags: Annotated[list[Line], Field(max_length=100, default_factory=list)]


class PreviewRetention(Asked):
    """What the rules of a policy, or others, would do to its backups."""

    policy: Line
    rules: AskedRules | None = None
    at: Annotated[Moment | None, Field(description="as if it were this time")] = None


class SourceDocument(TypedDict):
    """A source of a policy and its newest backup; `snapshot_name` is what its snapshots are named."""

    policy: str
    name: str | None
    snapshot_name: str
    type: str
    backups: int
    last_backup_id: str | None
    last_backup_at: datetime | None
    last_bytes: int | None


class MonitorDocument(TypedDict):
    """How the backups are: the state, when the last good one was made, its size in bytes and duration in seconds."""

    status: Literal["success", "failure", "in_progress", "never"]
    last_backup: datetime | None
    size: int
    duration: float
    errors: list[dict[str, Any]]


class PolicyDocument(TypedDict):
    """A policy in short."""

    name: str
    description: str
    tags: list[str]
    sources: list[str]
    next_runs: dict[str, datetime]
    monitor: MonitorDocument


class PolicyDetail(PolicyDocument):
    """A policy with all that holds: each value with who says it; what is secret is hidden."""

    effective: dict[str, Any]


class DecisionDocument(TypedDict):
    """What would become of one backup, and every reason for it."""

    backup_id: str
    source: str
    time: datetime
    keep: bool
    reasons: list[str]


class RetentionPreview(TypedDict):
    """What the rules would do: the newest backups first, by source."""

    policy: str
    kept: int
    dropped: int
    dropped_bytes: int
    decisions: list[DecisionDocument]
