"""The times that a cron expression gives, by the clocks of a time zone.

An expression with a fixed hour and minute comes once on every day, also on the nights when clocks change: a time that
is passed over comes when the clocks go on, and one that is shown twice comes the first time. One that comes every so
many minutes or hours comes whenever a clock shows such a time, as often as it does. So does cron of Debian.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from math import ceil
from typing import Final

from cronsim import CronSim

_WEEK: Final = timedelta(days=7)  # clocks change no more than once in it
_MINUTE: Final = timedelta(minutes=1)
# From how long ago the newest times are looked for, the shortest first: years of minutes are not counted one by one.
_BACK: Final = tuple(timedelta(hours=hours) for hours in (2, 26, 8 * 24, 32 * 24, 367 * 24))


class FireTimes:
    """The times of one expression, which was checked before; all of them are aware and in UTC."""

    def __init__(self, cron: str, zone: tzinfo) -> None:
        self._cron, self._zone = " ".join(cron.upper().split()), zone
        minute, hour, *_ = self._cron.split()
        self._is_fixed = not minute.startswith("*") and not hour.startswith("*")

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All times that are later than a moment, in order."""
        moment = moment.astimezone(UTC)
        return self._fixed(moment) if self._is_fixed else self._whenever_shown(moment)

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

    def _fixed(self, last: datetime) -> Iterator[datetime]:
        for found in CronSim(self._cron, last.astimezone(self._zone)):
            # What is shown twice in autumn may be given again, although it lies before the moment.
            if (time := found.astimezone(UTC)) > last:
                yield time
                last = time

    def _whenever_shown(self, last: datetime) -> Iterator[datetime]:
        """Times on a wall without a zone, as long as its clock keeps one distance from UTC; then with the next one.

        The library itself leaves out times where clocks change at midnight or by half an hour.
        """
        offset = self._offset(last)
        while True:
            changed = None
            for wall in CronSim(self._cron, (last + offset).replace(tzinfo=None)):
                time = wall.replace(tzinfo=UTC) - offset
                if (changed := self._change(last, time, offset)) is not None:
                    break
                yield time
                last = time
            if changed is None:
                return
            offset = self._offset(changed)
            last = changed - timedelta(seconds=1)  # the time of the change itself may be one

    def _change(self, since: datetime, time: datetime, offset: timedelta) -> datetime | None:
        """The first moment up to `time` at which another offset holds than at `since`."""
        known = since
        while known < time:
            step = min(known + _WEEK, time)
            if self._offset(step) != offset:
                return self._first_change(known, step, offset)
            known = step
        return None

    def _first_change(self, known: datetime, changed: datetime, offset: timedelta) -> datetime:
        """The minute between two moments from which another offset holds."""
        low, high = 0, ceil((changed - known) / _MINUTE)  # minutes before `changed`: another offset, the same one still
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(changed - middle * _MINUTE) == offset:
                high = middle
            else:
                low = middle
        return changed - low * _MINUTE

    def _offset(self, time: datetime) -> timedelta:
        return time.astimezone(self._zone).utcoffset() or timedelta(0)
