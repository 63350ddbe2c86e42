"""Schedules: when which policy runs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, Document, JsonDocument, Moment


class ScheduleRecord(Base):
    """A time and what happens then.

    `origin` is `file` for those that a policy file names, which nobody may change but the file, and `api` for the
    others. `type` is the kind of backup, or `transaction_logs`, `configuration`, `on_change`, `verification`, `prune`,
    `gc` or `copy`. Missed times are run once (`coalesce`) if they are not older than `misfire_grace_s`, None for any
    age.

    `fires_at` is the time that the expression gives, `next_run_at` that time with its jitter; both are None when it
    will not run. `claimed` are times that are decided to run and have no job yet: what a crash leaves between them.
    """

    __tablename__ = "schedules"
    __table_args__ = (Index("ix_schedules_due", "enabled", "next_run_at"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    origin: Mapped[str] = mapped_column(String(8), default="api")
    policy: Mapped[str] = mapped_column(String(255), index=True)
    type: Mapped[str] = mapped_column(String(16))
    sources: Mapped[list[str]] = mapped_column(JsonDocument, default=list)  # none: all of the policy
    cron: Mapped[str] = mapped_column(String(255))
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    enabled: Mapped[bool] = mapped_column(default=True)
    coalesce: Mapped[bool] = mapped_column(default=True)
    misfire_grace_s: Mapped[int | None]
    jitter_s: Mapped[int] = mapped_column(default=0)
    retention_days: Mapped[int | None]
    options: Mapped[Document] = mapped_column(JsonDocument, default=dict)
    paused_until: Mapped[datetime | None] = mapped_column(Moment)
    paused_reason: Mapped[str | None] = mapped_column(Text)
    fires_at: Mapped[datetime | None] = mapped_column(Moment)
    next_run_at: Mapped[datetime | None] = mapped_column(Moment)
    claimed: Mapped[list[str] | None] = mapped_column(JsonDocument)
    last_run_at: Mapped[datetime | None] = mapped_column(Moment)
    last_job_id: Mapped[str | None] = mapped_column(String(26))
    last_missed: Mapped[str | None] = mapped_column(Text)  # why the last time that did not run did not
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)
    version: Mapped[int] = mapped_column(default=1)  # counts changes by people: what ETags are made of
