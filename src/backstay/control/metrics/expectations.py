"""What is expected of backups: how fresh they are, how full the repository may be, and when somebody should look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExpectation:
    """Of one policy: the names of its snapshots, and how old the newest of each may be; None where it follows from
    the schedule, or nobody asks for it."""

    sources: tuple[str, ...] = ()
    rpo: timedelta | None = None
    verification: timedelta | None = None
    rehearsal: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """Of all. A backup may be `factor` times as old as the longest pause of its schedule."""

    policies: Mapping[str, PolicyExpectation] = field(default_factory=dict)
    factor: float = 1.5
    capacity_percent: int = 90
    forecast: timedelta = 7 * DAY  # full within this time
    denials: int = 10  # of one actor, within the window
    denials_within: timedelta = timedelta(minutes=10)
    key_age: timedelta = 90 * DAY
    running: timedelta = DAY  # a job that runs longer is stuck
    waiting: timedelta = timedelta(hours=1)  # a job that waits longer
    agents: tuple[str, ...] = ()  # that policies need
    silent: timedelta = timedelta(hours=1)  # one of them that was not seen for longer
