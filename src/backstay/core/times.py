"""Spans and moments as people write them."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Self

from backstay.errors import InvalidRequest, NaiveTimestamp

# Largest first: a span names its units in this order, each at most once.
_UNITS: Final = (
    ("years", "y", ("y", "yr", "yrs", "year", "years")),
    ("months", "m", ("m", "mo", "month", "months")),
    ("weeks", "w", ("w", "wk", "week", "weeks")),
    ("days", "d", ("d", "day", "days")),
    ("hours", "h", ("h", "hr", "hrs", "hour", "hours")),
    ("minutes", "min", ("min", "mins", "minute", "minutes")),
    ("seconds", "s", ("s", "sec", "secs", "second", "seconds")),
)
_RANK: Final = {word: rank for rank, (_, _, words) in enumerate(_UNITS) for word in words}
_LETTERS: Final = {name: letter for name, letter, _ in _UNITS}

_SPAN: Final = re.compile(r"(?:[0-9]{1,9}\s*[a-z]+\s*)+", re.ASCII)
_SPAN_PART: Final = re.compile(r"([0-9]+)\s*([a-z]+)", re.ASCII)
_DAY_WORD: Final = re.compile(r"(today|yesterday)(?=$|[t ])", re.ASCII)
_EPOCH: Final = re.compile(r"@(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?", re.ASCII)
_ISO: Final = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})"
    r"(?:[t ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?|[0-9]{4}(?:[0-9]{2})?)"
    r" ?(?P<offset>z|utc|[+-][0-9]{2}(?::?[0-9]{2})?)?)?",
    re.ASCII,
)

_SPAN_HINT: Final = "write for example 30d, 2w, 1y6m, 12h, 90min or 30s; m is months, min minutes, largest unit first"
_LENGTH_HINT: Final = "write for example 90s, 15min, 2h or 14d; m would be months, min is minutes"
_MOMENT_HINT: Final = (
    "write for example 2026-11-18, '2026-11-18 14:30', 2026-11-18T14:30:00Z, 2026-11-18T14:30+01:00, "
    "@1795012200, '2h ago', yesterday or now"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A length of calendar time, such as one year and six months.

    Years, months and days are steps on the calendar of a zone; hours and below are exact lengths. Weeks are
    days. A span of nothing is false.
    """

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: int = 0

    def __post_init__(self) -> None:
        if any(count < 0 for _, count in self._parts()):
            raise InvalidRequest("a span of time cannot be negative", hint=_SPAN_HINT)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The span that `30d`, `1y6m`, `2 weeks` or `90min` means; anything else is an InvalidRequest."""
        counts = _span_counts(text)
        weeks = counts.pop("weeks", 0)
        counts["days"] = counts.get("days", 0) + 7 * weeks
        return cls(**counts)

    def subtract_from(self, moment: datetime) -> datetime:
        """The moment this much earlier on the calendar of the moment's own zone.

        A day that the earlier month does not have becomes its last day; an hour that a clock change skipped moves
        forward. What lies before year 1 becomes the earliest moment there is.
        """
        try:
            wall = self._whole_days_before(moment) if self.years or self.months or self.days else moment
            rest = timedelta(hours=self.hours, minutes=self.minutes, seconds=self.seconds)
            return (wall.astimezone(UTC) - rest).astimezone(moment.tzinfo)
        except (OverflowError, ValueError):  # the latter from the clocks of this place, whose first day is not known
            return datetime.min.replace(tzinfo=UTC)

    def length_before(self, moment: datetime) -> timedelta:
        """How long this span is when it ends at a moment."""
        return moment - self.subtract_from(moment)

    def __bool__(self) -> bool:
        return any(count for _, count in self._parts())

    def __str__(self) -> str:
        return "".join(f"{count}{_LETTERS[name]}" for name, count in self._parts() if count) or "0d"

    def _whole_days_before(self, moment: datetime) -> datetime:
        return _months_before(moment, 12 * self.years + self.months) - timedelta(days=self.days)

    def _parts(self) -> Iterator[tuple[str, int]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def parse_length(text: str) -> timedelta:
    """The length, the same at any time, that `90s`, `15min` or `1h30min` means; 0 needs no unit.

    Raises InvalidRequest, also for years and months: they have no fixed length, and who writes 5m means minutes.
    """
    if text.strip() == "0":
        return timedelta(0)
    span = Span.parse(text)
    if span.years or span.months:
        raise InvalidRequest(
            f"{text!r} is no fixed length of time", cause="years and months differ in length", hint=_LENGTH_HINT
        )
    try:
        return timedelta(days=span.days, hours=span.hours, minutes=span.minutes, seconds=span.seconds)
    except OverflowError:
        raise InvalidRequest(f"{text!r} is too long", cause="no clock counts that far", hint=_LENGTH_HINT) from None


def parse_moment(text: str, *, now: datetime, zone: tzinfo) -> datetime:
    """The moment, in UTC, that a person means by a text such as `2026-11-18 14:30` or `2h ago`.

    A time without an offset is local to `zone`: one that a clock change repeats means the first of the two, one
    that it skips moves forward. A date alone, `today` and `yesterday` mean the start of that day. Anything that
    cannot be read is an InvalidRequest.
    """
    words = text.strip().lower()
    try:
        if words == "now":
            return now.astimezone(UTC)
        if words.endswith(" ago"):
            return Span.parse(words.removesuffix(" ago")).subtract_from(now.astimezone(zone)).astimezone(UTC)
        if words.startswith("@"):
            return _epoch_moment(words)
        return _iso_moment(_with_date(words, now.astimezone(zone)), zone)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"cannot read the time {text!r}", cause=str(error), hint=_MOMENT_HINT) from None


def require_zone(moment: datetime | None) -> None:
    """Raises NaiveTimestamp for a time that a program gives without one."""
    if moment is not None and moment.utcoffset() is None:
        raise NaiveTimestamp("the time has no zone", cause=f"{moment.isoformat()} may be several moments")


def _span_counts(text: str) -> dict[str, int]:
    words = text.strip().lower()
    if not _SPAN.fullmatch(words):
        raise InvalidRequest(
            f"cannot read the span of time {text!r}", cause="it is no whole number with a unit", hint=_SPAN_HINT
        )
    counts: dict[str, int] = {}
    last = -1
    for number, unit in _SPAN_PART.findall(words):
        rank = _RANK.get(unit, -1)
        if rank <= last:
            cause = f"{unit!r} is out of order" if unit in _RANK else f"there is no unit {unit!r}"
            raise InvalidRequest(f"cannot read the span of time {text!r}", cause=cause, hint=_SPAN_HINT)
        last = rank
        counts[_UNITS[rank][0]] = int(number)
    return counts


def _months_before(moment: datetime, months: int) -> datetime:
    year, month = divmod(12 * moment.year + moment.month - 1 - months, 12)
    if year < 1:
        raise OverflowError("before year 1")
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))


def _with_date(words: str, today: datetime) -> str:
    """The text with a leading `today` or `yesterday` written as a date."""
    if found := _DAY_WORD.match(words):
        back = timedelta(days=1 if found[1] == "yesterday" else 0)
        return (today.date() - back).isoformat() + words[found.end() :]
    return words


def _epoch_moment(words: str) -> datetime:
    found = _EPOCH.fullmatch(words)
    if found is None:
        raise ValueError("a number of seconds since 1970 must follow the @")
    sign, seconds, fraction = found.groups(default="")
    since = timedelta(seconds=int(seconds), microseconds=int(fraction[:6].ljust(6, "0")))
    return datetime.fromtimestamp(0, UTC) + (-since if sign else since)


def _iso_moment(words: str, zone: tzinfo) -> datetime:
    found = _ISO.fullmatch(words)
    if found is None:
        raise ValueError("it is neither a date, nor a date and time, nor how long ago")
    offset = "Z" if found["offset"] == "utc" else (found["offset"] or "").upper()
    moment = datetime.fromisoformat(f"{found['date']}T{found['time'] or '00:00'}{offset}")
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
