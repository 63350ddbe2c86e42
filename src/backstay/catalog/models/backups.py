"""Backups: one row for each snapshot of a repository, and the proofs that it can be restored."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, Document, JsonDocument, Moment


class Backup(Base):
    """A snapshot, as far as lists and searches need it; the repository is what counts, and this can be made anew.

    The id is the snapshot's own. `bytes` is what was backed up, `stored_bytes` what the snapshot added. One that cannot
    be read is `damaged`, and has no more than its id and the time in it if it never could.
    """

    __tablename__ = "backups"
    __table_args__ = (
        Index("ix_backups_time_id", "time", "id"),
        Index("ix_backups_policy_time", "policy", "time"),
        Index("ix_backups_source_time", "source", "time"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    repository: Mapped[str] = mapped_column(String(32))  # the repository's id, in hexadecimal
    policy: Mapped[str | None] = mapped_column(String(255))
    source: Mapped[str] = mapped_column(String(512))  # the snapshot's name
    type: Mapped[str] = mapped_column(String(16))  # full, incremental, differential
    host: Mapped[str] = mapped_column(String(255))
    time: Mapped[datetime] = mapped_column(Moment)
    recorded_at: Mapped[datetime] = mapped_column(Moment)
    description: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    paths: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    files: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    held: Mapped[bool] = mapped_column(default=False)
    damaged: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[str | None] = mapped_column(String(26))
    duration_s: Mapped[float | None]
    verified_at: Mapped[datetime | None] = mapped_column(Moment)
    verified_ok: Mapped[bool | None]
    rehearsed_at: Mapped[datetime | None] = mapped_column(Moment)
    rehearsed_ok: Mapped[bool | None]


class PassedOver(Base):
    """An object under a snapshot's name that is no backup, or no more: it need not be read again to know that."""

    __tablename__ = "passed_over"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    repository: Mapped[str] = mapped_column(String(32), index=True)
    why: Mapped[str] = mapped_column(String(8))  # fenced, values, dropped


class Evidence(Base):
    """The report of a rehearsal or a verification, as an auditor keeps it: a document and its SHA-256."""

    __tablename__ = "evidence"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    job_id: Mapped[str | None] = mapped_column(String(26), index=True)
    backup_id: Mapped[str] = mapped_column(String(26), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    ok: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(Moment, index=True)
    report: Mapped[Document] = mapped_column(JsonDocument)
    digest: Mapped[str] = mapped_column(String(64))


class RestorePlanRecord(Base):
    """A restore that was planned: `plan_id` of the interface, good until it expires."""

    __tablename__ = "restore_plans"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    backup_id: Mapped[str] = mapped_column(String(26))
    principal: Mapped[str] = mapped_column(String(64))
    request: Mapped[Document] = mapped_column(JsonDocument)
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment, index=True)
