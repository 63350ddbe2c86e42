"""What a policy file expects of its backups."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from backstay.control.metrics.expectations import Expectations, PolicyExpectation
from backstay.control.metrics.pauses import longest_pause
from backstay.control.policies.effective import Effective, effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.notifications import Alerts, Limits
from backstay.control.policies.policy import Policy
from backstay.core.times import parse_length

_KEY_DAYS: Final = 90


def expectations_of(loaded: LoadedPolicies | None) -> Expectations:
    """The expectations of a file; those that are built in where there is none."""
    if loaded is None:
        return Expectations()
    settings = loaded.content.backup_manager
    alerts = settings.alerts or Alerts()
    rotation = settings.encryption.key_rotation_days if settings.encryption is not None else None
    return Expectations(
        policies={
            name: _of_policy(name, policy, effective(policy, settings), alerts)
            for name, policy in loaded.content.policies.items()
        },
        factor=alerts.rpo_factor,
        capacity_percent=alerts.capacity,
        forecast=_length(alerts.forecast),
        denials=alerts.denials,
        denials_within=_length(alerts.denials_within),
        key_age=_optional(alerts.key_age) or timedelta(days=rotation or _KEY_DAYS),
        running=_length(alerts.running),
        waiting=_length(alerts.waiting),
        agents=tuple(sorted({one.agent for one in loaded.content.policies.values() if one.agent is not None})),
        silent=_length(alerts.silent),
    )


def _of_policy(name: str, policy: Policy, holds: Effective, alerts: Alerts) -> PolicyExpectation:
    own = policy.alerts or Limits()
    scheduled = _scheduled(holds, alerts.rpo_factor)
    verification = holds.verification
    tried = verification is not None and verification.restore_test
    return PolicyExpectation(
        sources=tuple(origin.snapshot_name(name) for origin in policy.sources),
        rpo=_optional(own.rpo or alerts.rpo),
        verification=_optional(own.verification or alerts.verification) or scheduled,
        rehearsal=_optional(own.rehearsal or alerts.rehearsal) or (scheduled if tried else None),
    )


def _scheduled(holds: Effective, factor: float) -> timedelta | None:
    """How old a verification may be by its schedule."""
    verification = holds.verification
    if verification is None or not verification.enabled or verification.schedule is None:
        return None
    return longest_pause(verification.schedule, holds.schedule.timezone or "UTC") * factor


def _length(text: str) -> timedelta:
    return parse_length(text)


def _optional(text: str | None) -> timedelta | None:
    return None if text is None else _length(text)
