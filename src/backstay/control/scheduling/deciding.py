"""Which of the times that are due run, and why the others do not. Nothing here asks a clock or a database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from backstay.catalog.models import ScheduleRecord
from backstay.catalog.models.jobs import FINISHED
from backstay.control.policies.fire_times import FireTimes
from backstay.control.scheduling.timing import jitter, set_next, times_of
from backstay.core.quantities import plural

PUNCTUAL: Final = timedelta(minutes=1)  # what comes so late is not missed: whoever looks does so every few seconds
MOST_AT_ONCE: Final = 100  # jobs for times that were missed, where each of them counts
_COUNTED: Final = 1000
_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The times that run; `last` is the latest that is due, and `missed` says why one that is due does not run."""

    times: tuple[datetime, ...]
    last: datetime
    missed: str | None = None

    def without_times(self, missed: str | None) -> Decision:
        """The schedule moves on, and nothing runs."""
        return replace(self, times=(), missed=missed)

    def apply(self, schedule: ScheduleRecord, now: datetime) -> None:
        """Move a schedule on, and claim the times that run."""
        if self.times:
            schedule.claimed = [*(schedule.claimed or ()), *(time.isoformat() for time in self.times)]
            schedule.last_run_at = self.times[-1]
        if self.missed is not None:
            schedule.last_missed = self.missed
        if schedule.paused_reason is not None:  # it is over, or nothing would be due
            schedule.paused_until = schedule.paused_reason = None
        set_next(schedule, self.last, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastJob:
    """What became of the last run of a schedule."""

    status: str

    @property
    def has_ended(self) -> bool:
        return self.status in FINISHED


def decide(schedule: ScheduleRecord, now: datetime, *, last: LastJob | None) -> Decision:
    """What a schedule that is due does; its last job is none if it never had one.

    Of times that were missed the last one runs, or each of them if the schedule does not coalesce; none that is later
    than its grace.
    """
    first = schedule.fires_at
    assert first is not None, "a schedule that never comes is not due"
    times = times_of(schedule)
    due = _last_due(schedule, times, first, now)
    if last is not None and not last.has_ended:
        return Decision(times=(), last=due, missed=f"{_told(due)}: the run before had not ended")
    count = times.count(first - _INSTANT, due, at_most=_COUNTED)
    if not _in_grace(schedule, due, now):
        late = f"{plural(count, 'time')} up to {_told(due)} came too late: nothing ran until {_told(now)}"
        return Decision(times=(), last=due, missed=late)
    if not schedule.coalesce:
        return _each(schedule, times, first, due, now)
    missed = None if count <= 1 else f"{_earlier(count)} before {_told(due)} did not run, and are made up for by it"
    return Decision(times=(due,), last=due, missed=missed)


def _each(schedule: ScheduleRecord, times: FireTimes, first: datetime, last: datetime, now: datetime) -> Decision:
    """A run for each time that is not too late, and for the newest of them if there are very many."""
    newest = times.newest(first - _INSTANT, last, MOST_AT_ONCE)
    due = [time for time in newest if _in_grace(schedule, time, now)]
    passed = times.count(first - _INSTANT, due[0] - _INSTANT, at_most=_COUNTED)
    missed = f"{plural(passed, 'time')} before {_told(due[0])} came too late, or too many at once" if passed else None
    return Decision(times=tuple(due), last=last, missed=missed)


def _last_due(schedule: ScheduleRecord, times: FireTimes, first: datetime, now: datetime) -> datetime:
    """The latest time from the first on that has come, with its jitter."""
    until = now
    while (found := times.latest(first - _INSTANT, until)) is not None and found > first:
        if found + jitter(schedule.id, found, schedule.jitter_s) <= now:
            return found
        until = found - _INSTANT
    return first


def _in_grace(schedule: ScheduleRecord, time: datetime, now: datetime) -> bool:
    grace = schedule.misfire_grace_s
    late = now - time - jitter(schedule.id, time, schedule.jitter_s)
    return grace is None or late <= max(timedelta(seconds=grace), PUNCTUAL)


def _earlier(count: int) -> str:
    return f"{_COUNTED - 1} times or more" if count == _COUNTED else plural(count - 1, "time")


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
