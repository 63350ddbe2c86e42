"""The time zone of this place, by the rules of the C library: those by which times are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_DAY: Final = timedelta(days=1)  # offsets of which datetime knows none; those that C libraries know count as none
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - on the clock of whichever place


class LocalZone(tzinfo):
    """What TZ says in any of its forms, else /etc/localtime, with its clock changes."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        if moment is None:
            return None
        wall = moment.replace(tzinfo=None, microsecond=0)
        offset = wall - _EPOCH - timedelta(seconds=wall.timestamp())
        return offset if abs(offset) < _DAY else timedelta(0)

    def fromutc(self, moment: datetime, /) -> datetime:
        try:
            shown = moment.replace(tzinfo=UTC).astimezone()
        except ValueError:
            return moment.replace(tzinfo=self)
        local = shown.replace(tzinfo=self)
        return local if local.utcoffset() == shown.utcoffset() else local.replace(fold=1)

    def tzname(self, moment: datetime | None, /) -> str | None:
        try:
            return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()
        except ValueError:
            return "UTC"

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        """Not known apart from the offset."""
        del moment
        return None


LOCAL: Final = LocalZone()
