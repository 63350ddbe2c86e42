"""Jobs: one run of anything, from the moment that it was asked for to its result."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from backstay.api.models.base import Line, Moment, Paged

BackupJobKind = Literal["backup", "verification", "rehearsal", "prune", "gc", "copy", "delete", "notification"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobQuery(Paged):
    """Which jobs; what is left out does not choose."""

    status: JobState | None = None
    policy: Line | None = None
    source: Annotated[Line | None, Field(description="a source of a policy, by its own name")] = None
    schedule: Annotated[Line | None, Field(description="the id of a schedule")] = None
    since: Annotated[Moment | None, Field(description="asked for at this time or later")] = None
    until: Annotated[Moment | None, Field(description="asked for before this time")] = None


class BackupJobQuery(JobQuery):
    """Which jobs, but restores."""

    kind: BackupJobKind | None = None


class LogQuery(Paged):
    """Which lines of a log."""

    level: Literal["info", "warning", "error"] | None = None


class JobDocument(TypedDict):
    """A job. `error` is a problem document; `backup_id` what it made, restores or checks; `result` what it came to.
    `agent` is the only one that may run it.
    """

    id: str
    kind: str
    status: JobState
    policy: str | None
    sources: list[str]
    type: str | None
    actor: str
    backup_id: str | None
    restore_id: str | None
    schedule_id: str | None
    scheduled_for: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None
    attempts: int
    worker: str | None
    agent: str | None
    cancel_asked: bool
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class LineDocument(TypedDict):
    """A line of a job's log."""

    id: int
    time: datetime
    level: str
    message: str
