"""The tables."""

from __future__ import annotations

from backstay.catalog.models.access import AgentCertificate, AgentProcess, Binding, JoinToken, Token, User
from backstay.catalog.models.audit import AuditCheckpoint, AuditEntry
from backstay.catalog.models.backups import Backup, Evidence, PassedOver, RestorePlanRecord
from backstay.catalog.models.base import Base
from backstay.catalog.models.jobs import IdempotencyKey, Job, JobLine, Worker
from backstay.catalog.models.notices import AlertState, Counter, Matcher, OutboxMessage, Target
from backstay.catalog.models.repositories import RepositorySample
from backstay.catalog.models.schedules import ScheduleRecord

__all__ = [
    "AgentCertificate",
    "AgentProcess",
    "AlertState",
    "AuditCheckpoint",
    "AuditEntry",
    "Backup",
    "Base",
    "Binding",
    "Counter",
    "Evidence",
    "IdempotencyKey",
    "Job",
    "JobLine",
    "JoinToken",
    "Matcher",
    "OutboxMessage",
    "PassedOver",
    "RepositorySample",
    "RestorePlanRecord",
    "ScheduleRecord",
    "Target",
    "Token",
    "User",
    "Worker",
]
