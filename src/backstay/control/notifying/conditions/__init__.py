"""What calls for an alert, found by looking at the catalog."""

from __future__ import annotations

from typing import Final

from backstay.control.notifying.conditions.access import refused_often
from backstay.control.notifying.conditions.agents import silent_agents
from backstay.control.notifying.conditions.capacity import almost_full
from backstay.control.notifying.conditions.condition import Condition, Look, Looking
from backstay.control.notifying.conditions.corruption import damaged
from backstay.control.notifying.conditions.delivery import undeliverable
from backstay.control.notifying.conditions.jobs import stuck
from backstay.control.notifying.conditions.keys import old_keys
from backstay.control.notifying.conditions.overdue import backups_overdue, rehearsals_overdue, verifications_overdue
from backstay.control.notifying.conditions.workers import lost_workers
from backstay.control.notifying.notices import NoticeKind

LOOKS: Final[dict[NoticeKind, Looking]] = {
    "rpo_at_risk": backups_overdue,
    "verification_overdue": verifications_overdue,
    "rehearsal_overdue": rehearsals_overdue,
    "capacity": almost_full,
    "corruption": damaged,
    "access_violation": refused_often,
    "key_age": old_keys,
    "job_stuck": stuck,
    "worker_lost": lost_workers,
    "agent_silent": silent_agents,
    "undeliverable": undeliverable,
}

__all__ = ["LOOKS", "Condition", "Look", "Looking"]
