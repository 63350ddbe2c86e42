"""One thing that calls for an alert, and what is looked at to find it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy.orm import Session

from backstay.control.metrics.expectations import Expectations
from backstay.control.metrics.sources import SourceFacts
from backstay.control.notifying.notices import NoticeKind
from backstay.control.policies.notifications import Severity

_LONGEST: Final = 255  # of a fingerprint in the catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that holds now. `kind` and `subject` tell alerts apart; the texts may change while one is on.

    `ended` is the title of the message that it is over. `but` are ids of targets that cannot be told.
    """

    kind: NoticeKind
    subject: str
    severity: Severity
    title: str
    ended: str
    cause: str = ""
    solution: str = ""
    policy: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    but: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """What alerts are told apart by."""
        text = f"{self.kind}:{self.subject}"
        if len(text) <= _LONGEST:
            return text
        return f"{self.kind}:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked at. `watched_since` is when this process began to look.

    `on` are the fingerprints of alerts that are on: a limit that was passed is left a little later than it was reached,
    so that nothing flutters.
    """

    session: Session
    now: datetime
    expected: Expectations
    facts: Sequence[SourceFacts]
    watched_since: datetime
    on: frozenset[str]


Looking: TypeAlias = Callable[[Look], Iterator[Condition]]


def told_time(moment: datetime) -> str:
    """A time for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def told_length(length: timedelta) -> str:
    """A length of time for people: `3 days`, `26 hours`, `5 minutes`."""
    seconds = max(0, round(length.total_seconds()))
    for unit, size, least in (("day", 86400, 3 * 86400), ("hour", 3600, 2 * 3600), ("minute", 60, 120)):
        if seconds >= least:
            return f"{seconds // size} {unit}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
