"""What a repository held at some moment: measured now and then, for metrics, alerts and forecasts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from backstay.catalog.models.base import Base, BigId, Document, JsonDocument, Moment


class RepositorySample(Base):
    """Sizes in bytes; None where the place does not say. `facts` holds ages of keys and lags of logs, in seconds."""

    __tablename__ = "repository_samples"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(Moment, index=True)
    repository: Mapped[str] = mapped_column(String(32), index=True)
    tier: Mapped[str] = mapped_column(String(8), default="hot")
    used_bytes: Mapped[int] = mapped_column(BigInteger)
    free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    facts: Mapped[Document] = mapped_column(JsonDocument, default=dict)
