"""What somebody is told: a notice, in words, with what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from backstay.control.policies.notifications import Kind, Severity

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

NoticeKind: TypeAlias = Literal[Kind, "test"]  # a test goes to whom it is for: no rule of a policy names it
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
