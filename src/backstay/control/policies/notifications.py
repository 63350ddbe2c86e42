"""What a policy file says of messages and alerts: who is told of what, and when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from backstay.control.policies.document import Document
from backstay.control.policies.origins import Name
from backstay.control.policies.targets import AnyTarget, WebAddress
from backstay.control.policies.values import HIDDEN_ADDRESS, Count, Length, Model, Ratio, Text, several
from backstay.errors import Mistake

Severity: TypeAlias = Literal["info", "warning", "error"]
Kind: TypeAlias = Literal[
    "backup_succeeded",
    "backup_failed",
    "job_succeeded",  # of the other kinds of jobs
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
]
SERIOUS: Final[tuple[Severity, ...]] = ("warning", "error")


class Matching(Model):
    """Which messages go to which targets; what is not given matches all."""

    targets: Annotated[tuple[Name, ...], several(1)]
    severities: tuple[Severity, ...] = ()
    kinds: tuple[Kind, ...] = ()
    policies: tuple[Text, ...] = ()


class Notifications(Model):
    """Who is told. Without matchers, all targets get warnings and errors."""

    targets: dict[Name, AnyTarget] = Field(default_factory=dict)
    matchers: dict[Name, Matching] = Field(default_factory=dict)


class PolicyNotifications(Model):
    """Who is told of one policy, besides; and what is fetched after each backup that succeeded."""

    targets: tuple[Name, ...] = ()
    severities: Annotated[tuple[Severity, ...], several(1)] = SERIOUS
    ping: Annotated[WebAddress | None, HIDDEN_ADDRESS] = None


class Limits(Model):
    """How old the newest good backup, verification and rehearsal of a source may be."""

    rpo: Length | None = None
    verification: Length | None = None
    rehearsal: Length | None = None


class Alerts(Limits):
    """When something is wrong, of all policies."""

    rpo_factor: Annotated[Ratio, Field(ge=1, le=100)] = 1.5
    capacity: Annotated[Count, Field(ge=1, le=100)] = 90
    forecast: Length = "7d"
    denials: Annotated[Count, Field(ge=1)] = 10
    denials_within: Length = "10min"
    key_age: Length | None = None
    running: Length = "1d"
    waiting: Length = "1h"
    silent: Length = "1h"


def unknown_names(
    document: Document,
    notifications: Notifications,
    policies: list[str],
    of_policies: dict[str, PolicyNotifications | None],
) -> Iterator[Mistake]:
    """The mistakes of names that name nothing."""
    at = ("backup_manager", "notifications", "matchers")
    for name, matching in notifications.matchers.items():
        for number, target in enumerate(matching.targets):
            if target not in notifications.targets:
                yield document.mistake((*at, name, "targets", number), *_no_target(target, notifications))
        for number, policy in enumerate(matching.policies):
            if policy not in policies:
                message = f"there is no policy {policy!r}"
                yield document.mistake((*at, name, "policies", number), message, _there_are(policies))
    for policy, own in of_policies.items():
        for number, target in enumerate(own.targets if own is not None else ()):
            if target not in notifications.targets:
                key = ("policies", policy, "notifications", "targets", number)
                yield document.mistake(key, *_no_target(target, notifications))


def _no_target(target: str, notifications: Notifications) -> tuple[str, str]:
    names = list(notifications.targets)
    hint = _there_are(names) if names else "name it under `backup_manager.notifications.targets`"
    return f"there is no target {target!r}", hint


def _there_are(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else ""
