"""The audit log: rows that nobody changes, each bound to the one before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, BigId, Document, JsonDocument, Moment


class AuditEntry(Base):
    """One operation or one refusal. `hash` is SHA-256 over `prev_hash` and the row in canonical JSON (RFC 8785)."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(Moment, index=True)
    actor: Mapped[str] = mapped_column(String(255), index=True)
    actor_details: Mapped[Document] = mapped_column(JsonDocument, default=dict)  # address, token id, request id
    action: Mapped[str] = mapped_column(String(64), index=True)
    object: Mapped[str] = mapped_column(String(512))
    outcome: Mapped[str] = mapped_column(String(8))  # allow, deny, error
    reason: Mapped[str] = mapped_column(Text, default="")
    details: Mapped[Document] = mapped_column(JsonDocument, default=dict)
    prev_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditCheckpoint(Base):
    """A signed head of the log: whoever kept one can tell whether what came before was changed."""

    __tablename__ = "audit_checkpoints"

    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(Moment)
    hash: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(Text)
    public_key: Mapped[str] = mapped_column(String(64))
