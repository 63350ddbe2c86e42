"""Cron by walking through all minutes, slowly and without any library: what times are held against."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache

MINUTE = timedelta(minutes=1)


def walk(cron: str, zone: tzinfo, begin: datetime, end: datetime) -> list[datetime]:
    """All times from `begin` up to `end`, both excluded and included as `FireTimes` does: later than the first."""
    minute, hour, *_ = cron.split()
    fixed = not minute.startswith("*") and not hour.startswith("*")
    found = _by_the_wall(cron, zone, begin, end) if fixed else _by_what_passes(cron, zone, begin, end)
    return sorted({time for time in found if begin < time <= end})


def _by_what_passes(cron: str, zone: tzinfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Each minute that really passes, by what the clock on the wall shows then."""
    time = begin.replace(second=0, microsecond=0)
    while time <= end:
        if _matches(cron, time.astimezone(zone)):
            yield time
        time += MINUTE


def _by_the_wall(cron: str, zone: tzinfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Each minute that a day has on paper: what the clock never shows comes when it goes on."""
    wall = (begin.astimezone(zone) - timedelta(days=1)).replace(tzinfo=None, second=0, microsecond=0)
    last = (end.astimezone(zone) + timedelta(days=1)).replace(tzinfo=None)
    while wall <= last:
        if _matches(cron, wall):
            shown = wall
            while not _exists(shown, zone):
                shown += MINUTE
            yield shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
        wall += MINUTE


def _exists(wall: datetime, zone: tzinfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall


def _matches(cron: str, wall: datetime) -> bool:
    minute, hour, day, month, weekday = cron.split()
    if not (_in(minute, wall.minute) and _in(hour, wall.hour) and _in(month, wall.month)):
        return False
    in_month, in_week = _in(day, wall.day), _in(weekday, wall.isoweekday() % 7) or _in(weekday, wall.isoweekday())
    # crontab(5): where both are restricted, either of them is enough
    if day.startswith("*") or weekday.startswith("*"):
        return in_month and in_week
    return in_month or in_week


@cache
def _in(field: str, value: int) -> bool:
    for part in field.split(","):
        values, _, step = part.partition("/")
        first, _, last = values.partition("-")
        low, high = (0, 59) if values == "*" else (int(first), int(last or first))
        if low <= value <= high and (value - (low if values != "*" else 0)) % int(step or 1) == 0:
            return True
    return False
