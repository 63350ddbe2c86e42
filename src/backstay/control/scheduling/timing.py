"""When a schedule comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from backstay.catalog.models import ScheduleRecord
from backstay.codec.digest import sha256
from backstay.control.policies.fire_times import FireTimes
from backstay.control.policies.values import zone_of

# A last run that lies so far ahead was made by a clock that was wrong.
_CREDIBLE: Final = timedelta(days=1)


def jitter(schedule: str, time: datetime, longest_s: int) -> timedelta:
    """By how much a time is put off: up to so many seconds, and the same for everybody who asks."""
    if longest_s <= 0:
        return timedelta(0)
    digest = sha256(f"{schedule} {time.astimezone(UTC).isoformat()}".encode())
    return timedelta(seconds=int.from_bytes(digest[:8], "big") % (longest_s + 1))


def times_of(schedule: ScheduleRecord) -> FireTimes:
    """All times of a schedule."""
    return FireTimes(schedule.cron, zone_of(schedule.timezone))


def is_paused(schedule: ScheduleRecord, now: datetime) -> bool:
    """Whether somebody stopped it for a while; without an end until somebody resumes it."""
    return schedule.paused_reason is not None and (schedule.paused_until is None or schedule.paused_until > now)


def set_next(schedule: ScheduleRecord, after: datetime, now: datetime) -> None:
    """Let a schedule run next at its first time after a moment, and not before its pause has ended."""
    schedule.fires_at = schedule.next_run_at = None
    if not schedule.enabled or (is_paused(schedule, now) and schedule.paused_until is None):
        return
    if is_paused(schedule, now) and schedule.paused_until is not None:
        after = max(after, schedule.paused_until - timedelta(microseconds=1))  # a time at its very end runs
    schedule.fires_at = times_of(schedule).next(after)
    if schedule.fires_at is not None:
        schedule.next_run_at = schedule.fires_at + jitter(schedule.id, schedule.fires_at, schedule.jitter_s)


def last_credible(schedule: ScheduleRecord, now: datetime) -> datetime:
    """The moment after which a schedule has not run yet: now, or its last time if a clock went back behind that."""
    last = schedule.last_run_at
    return now if last is None or last > now + _CREDIBLE else max(now, last)


def settle(schedule: ScheduleRecord, now: datetime) -> bool:
    """Bring the next time nearer where a clock that was ahead has put it too far; whether that was so."""
    if schedule.fires_at is None:
        return False
    due = times_of(schedule).next(last_credible(schedule, now))
    if due is None or due >= schedule.fires_at or is_paused(schedule, now):
        return False
    set_next(schedule, due - timedelta(microseconds=1), now)
    return True


def preview(schedule: ScheduleRecord, count: int, now: datetime) -> list[datetime]:
    """The next moments at which it will run, with its jitter and after its pause."""
    if schedule.fires_at is None or not schedule.enabled:
        return []
    found = [schedule.fires_at]
    for time in times_of(schedule).after(max(schedule.fires_at, now.astimezone(UTC))):
        if len(found) == count:
            break
        found.append(time)
    return [time + jitter(schedule.id, time, schedule.jitter_s) for time in found[:count]]
