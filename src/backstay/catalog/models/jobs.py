"""Jobs: one row for each run of anything, from the moment that it was asked for to its result."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, BigId, Document, JsonDocument, Moment

JobKind: TypeAlias = Literal[
    "backup", "restore", "verification", "rehearsal", "prune", "gc", "copy", "delete", "recovery", "notification"
]
JobStatus: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
DIRECT: Final = "direct"  # the queue of runs that no engine started: who runs them writes their end
AGENTS: Final = "agents"  # the queue of jobs that agents fetch: no engine knows of them
FINISHED: Final[frozenset[JobStatus]] = frozenset({"succeeded", "failed", "cancelled"})


class Job(Base):
    """One run. `arguments` and `result` are small documents of ids and numbers, never data and never secrets.

    `error` is a problem document. `backup_id` is the first snapshot that a backup made, or the one that is restored or
    verified; all that were made stand in `result["backups"]`. `scope` is what permissions are asked of. `settled_at` is
    when its end was counted and told of: once, whoever wrote the end. `agent` names the only one who may run
    it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status_created", "status", "created_at"),
        Index("ix_jobs_kind_created", "kind", "created_at", "id"),
        Index("ix_jobs_policy_kind_finished", "policy", "kind", "finished_at"),
        # Of jobs without number, those that nobody was told of yet are found at once.
        Index(
            "ix_jobs_unsettled",
            "finished_at",
            sqlite_where=text("settled_at IS NULL"),
            postgresql_where=text("settled_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)  # a ULID
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    queue: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    policy: Mapped[str | None] = mapped_column(String(255), index=True)
    scope: Mapped[str] = mapped_column(String(512), default="/")
    actor: Mapped[str] = mapped_column(String(255), default="system")
    arguments: Mapped[Document] = mapped_column(JsonDocument, default=dict)
    progress: Mapped[Document | None] = mapped_column(JsonDocument)
    result: Mapped[Document | None] = mapped_column(JsonDocument)
    error: Mapped[Document | None] = mapped_column(JsonDocument)
    backup_id: Mapped[str | None] = mapped_column(String(26), index=True)
    schedule_id: Mapped[str | None] = mapped_column(String(26), index=True)
    scheduled_for: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[datetime] = mapped_column(Moment, index=True)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    settled_at: Mapped[datetime | None] = mapped_column(Moment)
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(255))
    agent: Mapped[str | None] = mapped_column(String(64))
    cancel_asked: Mapped[bool] = mapped_column(default=False)


class JobLine(Base):
    """A line of a job's log."""

    __tablename__ = "job_lines"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    time: Mapped[datetime] = mapped_column(Moment)
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)


class Worker(Base):
    """A process that runs jobs, and until when it may be believed to live."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    queues: Mapped[list[str]] = mapped_column(JsonDocument)
    started_at: Mapped[datetime] = mapped_column(Moment)
    lease_until: Mapped[datetime] = mapped_column(Moment)


class IdempotencyKey(Base):
    """What a client's own key for a request stands for, so that asking twice does it once."""

    __tablename__ = "idempotency_keys"

    principal: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    response: Mapped[Document | None] = mapped_column(JsonDocument)
    location: Mapped[str | None] = mapped_column(String(512))
    scope: Mapped[str | None] = mapped_column(String(512))  # of what the answer tells of, for whoever asks again
    created_at: Mapped[datetime] = mapped_column(Moment, index=True)
