"""The times that a cron expression gives, by the clocks of a time zone.

An expression with a fixed hour and minute comes once on every day, also on the nights when clocks change: a time that
is passed over comes when the clocks go on, and one that is shown twice comes the first time. One that comes every so
many minutes or hours goes by the time that really passes. So does cron of Debian.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim

from backstay.codec.digest import sha256

# From how long ago the newest times are looked for, the shortest first: years of minutes are not counted one by one.
_BACK: Final = tuple(timedelta(hours=hours) for hours in (2, 26, 8 * 24, 32 * 24, 367 * 24))


class FireTimes:
    """The times of one expression, which was checked before; all of them are aware and in UTC."""

    def __init__(self, cron: str, zone: tzinfo) -> None:
        self._cron, self._zone = " ".join(cron.upper().split()), zone

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All times that are later than a moment, in order."""
        last = moment.astimezone(UTC)
        simulated = CronSim(self._cron, last.astimezone(self._zone))
        for found in simulated:
            # What is shown twice in autumn may be given again, although it lies before `moment`.
            if (time := found.astimezone(UTC)) > last and _is_shown(simulated, found, time.astimezone(self._zone)):
                yield time
                last = time

    def next(self, moment: datetime) -> datetime | None:
        """The first time that is later; None if there is none in fifty years."""
        return next(self.after(moment), None)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The last time that is later than `since` and not later than `until`."""
        found = self.newest(since, until, 1)
        return found[0] if found else None

    def newest(self, since: datetime, until: datetime, most: int) -> list[datetime]:
        """The last times that are later than `since` and not later than `until`, in order; no more than `most`."""
        for back in _BACK:
            if (begin := until - back) <= since:
                break
            if len(found := self._last(begin, until, most)) == most:
                return found
        return self._last(since, until, most)

    def count(self, since: datetime, until: datetime, *, at_most: int) -> int:
        """How many times are later than `since` and not later than `until`, counted no further than `at_most`."""
        found = 0
        for time in self.after(since):
            if time > until or found == at_most:
                break
            found += 1
        return found

    def _last(self, since: datetime, until: datetime, most: int) -> list[datetime]:
        last: deque[datetime] = deque(maxlen=most)
        for time in self.after(since):
            if time > until:
                break
            last.append(time)
        return list(last)


def _is_shown(simulated: CronSim, found: datetime, shown: datetime) -> bool:
    """Whether a time is one of an expression by what the clock really shows then.

    The library gives the midnight of a day that has none, where clocks go on at that hour.
    """
    if found.replace(tzinfo=None) == shown.replace(tzinfo=None):
        return True
    fits = shown.minute in simulated.minutes and shown.hour in simulated.hours and shown.month in simulated.months
    return fits and simulated.match_day(shown.date())


def jitter(schedule: str, time: datetime, longest_s: int) -> timedelta:
    """By how much a time is put off: up to so many seconds, and the same for everybody who asks."""
    if longest_s <= 0:
        return timedelta(0)
    digest = sha256(f"{schedule} {time.astimezone(UTC).isoformat()}".encode())
    return timedelta(seconds=int.from_bytes(digest[:8], "big") % (longest_s + 1))
