"""How long a cron expression pauses at most: what lies between two of its times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from cronsim import CronSim

from backstay.control.policies.values import zone_of

_BEGIN: Final = datetime(2024, 2, 1, 0, 0, tzinfo=UTC)  # a Thursday: a weekend comes soon, the 29th of February too
_AT_LEAST: Final = 40  # times: enough for months and years
_SPAN: Final = timedelta(days=10)  # enough for any week
_AT_MOST: Final = 4000


@lru_cache(maxsize=20_000)
def longest_pause(cron: str, zone_name: str) -> timedelta:
    """The longest time between two times of an expression that was checked, as far as ten days or forty times show.

    Clocks that change make a day an hour longer or shorter: that is not counted.
    """
    zone: tzinfo = zone_of(zone_name)
    begin = _BEGIN.replace(tzinfo=zone)
    times = CronSim(" ".join(cron.split()), begin)
    longest, before = timedelta(0), None
    for number, local in enumerate(times):
        wall = local.replace(tzinfo=None)
        if before is not None:
            longest = max(longest, wall - before)
        before = wall
        if number >= _AT_MOST or (number >= _AT_LEAST and local - begin > _SPAN):
            break
    return longest
