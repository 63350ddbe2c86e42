"""What somebody is told: a notice, in words, with what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Severity: TypeAlias = Literal["info", "warning", "error"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error")

NoticeKind: TypeAlias = Literal[
    "backup_succeeded",
    "backup_failed",
    "job_succeeded",  # of the other kinds
    "job_failed",
    "job_stuck",
    "rpo_at_risk",
    "capacity",
    "corruption",
    "access_violation",
    "key_age",
    "verification_overdue",
    "rehearsal_overdue",
    "worker_lost",
    "agent_silent",
    "undeliverable",
    "test",
]
KINDS: Final[tuple[NoticeKind, ...]] = get_args(NoticeKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell. `subject` names what it is about; `cause` and `solution` are those of a problem.

    `resolved` says that what was told before is over.
    """

    severity: Severity
    kind: NoticeKind
    subject: str
    title: str
    body: str = ""
    cause: str = ""
    solution: str = ""
    policy: str | None = None
    schedule: str | None = None
    resolved: bool = False
