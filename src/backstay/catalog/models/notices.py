"""Notices: whom to tell of what, alerts that are on, messages that wait to be sent, and counters for metrics."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, BigId, Document, JsonDocument, Moment


class Target(Base):
    """Where messages go: an address of the notification library, which may hold a secret and is never shown whole."""

    __tablename__ = "notification_targets"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    origin: Mapped[str] = mapped_column(String(8), default="api")
    address: Mapped[str] = mapped_column(Text)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    version: Mapped[int] = mapped_column(default=1)


class Matcher(Base):
    """Which messages go to which targets; an empty condition matches all."""

    __tablename__ = "notification_matchers"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    origin: Mapped[str] = mapped_column(String(8), default="api")
    targets: Mapped[list[str]] = mapped_column(JsonDocument)
    severities: Mapped[list[str]] = mapped_column(JsonDocument, default=list)  # info, warning, error
    kinds: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    policies: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    version: Mapped[int] = mapped_column(default=1)


class AlertState(Base):
    """An alert that is on, or was: it is told once when it begins, and once when it ends."""

    __tablename__ = "alerts"

    fingerprint: Mapped[str] = mapped_column(String(255), primary_key=True)  # kind and what it is about
    kind: Mapped[str] = mapped_column(String(32), index=True)
    subject: Mapped[str] = mapped_column(String(512))
    severity: Mapped[str] = mapped_column(String(8))
    title: Mapped[str] = mapped_column(Text)
    details: Mapped[Document] = mapped_column(JsonDocument, default=dict)
    began_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)
    resolved_at: Mapped[datetime | None] = mapped_column(Moment, index=True)
    count: Mapped[int] = mapped_column(default=1)


class OutboxMessage(Base):
    """A message for one target that waits to be sent, or was; written in the transaction of what it tells.

    `message_id` goes with it, so that a receiver can tell one that comes twice. One that will not be tried again has
    `given_up_at`.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    message_id: Mapped[str] = mapped_column(String(26), unique=True)
    target_id: Mapped[str] = mapped_column(String(26), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    policy: Mapped[str | None] = mapped_column(String(255))
    severity: Mapped[str] = mapped_column(String(8))
    title: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Moment)
    next_try_at: Mapped[datetime | None] = mapped_column(Moment, index=True)
    tries: Mapped[int] = mapped_column(default=0)
    sent_at: Mapped[datetime | None] = mapped_column(Moment)
    given_up_at: Mapped[datetime | None] = mapped_column(Moment)
    last_error: Mapped[str | None] = mapped_column(Text)


class Counter(Base):
    """A number that only grows, shared by all processes; `labels` is canonical JSON."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    labels: Mapped[str] = mapped_column(String(512), primary_key=True)
    value: Mapped[float] = mapped_column(Float, default=0.0)
