"""Sizes, counts and lengths of time as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
# Seconds from which an age is told in the unit, seconds of one, singular, plural.
_AGE_UNITS: Final = (
    (2 * 365 * _DAY, 365 * _DAY, "year", "years"),
    (61 * _DAY, 30.44 * _DAY, "month", "months"),
    (14 * _DAY, 7 * _DAY, "week", "weeks"),
    (_DAY, _DAY, "day", "days"),
    (_HOUR, _HOUR, "h", "h"),
    (_MINUTE, _MINUTE, "min", "min"),
)


def format_size(size: int) -> str:
    """A number of bytes in binary units, such as `1.5 GiB`; exact below 1 KiB, rounded to nearest above."""
    if size < 0:
        return "-" + format_size(-size)
    power = 0
    while power < len(_SIZE_UNITS) - 1 and _divide(size, 1024**power) >= 1024:
        power += 1
    if power == 0:
        return f"{size} B"
    tenths = _divide(10 * size, 1024**power)
    number = f"{tenths // 10}.{tenths % 10}" if tenths < 1000 else _divide(size, 1024**power)
    return f"{number} {_SIZE_UNITS[power]}"


def format_count(count: int) -> str:
    """A whole number with its thousands set apart by spaces, such as `1 234 567`."""
    return f"{count:,}".replace(",", " ")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`, `1 234 files`."""
    return f"{format_count(count)} {one if count == 1 else many or one + 's'}"


def format_duration(seconds: float) -> str:
    """How long something took, in one or two units: `85 ms`, `1.2 s`, `3 min 05 s`, `2 h 10 min`, `3 d 04 h`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if round(seconds * 1000) < 100:
        return f"{round(seconds * 1000)} ms"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    if round(seconds) < _HOUR:
        return "{} min {:02} s".format(*divmod(round(seconds), _MINUTE))
    if round(seconds / _MINUTE) < 2 * _DAY / _MINUTE:
        return "{} h {:02} min".format(*divmod(round(seconds / _MINUTE), 60))
    return "{} d {:02} h".format(*divmod(round(seconds / _HOUR), 24))


def format_age(moment: datetime, *, now: datetime) -> str:
    """How long ago a moment was, in one unit rounded down: `5 min ago`, `3 days ago`; `in 2 h` when it is to come."""
    seconds = (now - moment).total_seconds()
    for least, one, singular, several in _AGE_UNITS:
        if abs(seconds) >= least:
            count = int(abs(seconds) // one)
            told = f"{count} {singular if count == 1 else several}"
            return f"{told} ago" if seconds > 0 else f"in {told}"
    return "just now"


def _divide(number: int, by: int) -> int:
    """The quotient rounded to nearest, without passing through a float."""
    return (number + by // 2) // by
