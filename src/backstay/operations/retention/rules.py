"""Which snapshots the keep rules keep, each with its reason.

Pure functions: nothing is read and nothing is deleted here. Holds and other vetoes are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final, Generic, NoReturn, Protocol, TypeVar

from backstay.core.times import Span
from backstay.errors import InvalidRequest

_COUNTS: Final = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionRules:
    """What to keep; a snapshot stays if any one rule keeps it.

    `keep_last` keeps the newest n. `keep_hourly` to `keep_yearly` keep the newest snapshot of each of the n newest
    hours, days, ISO weeks, months or years that have one. `keep_within` keeps all that are at most this much older
    than the newest of their source, so a host that stopped backing up loses nothing. `keep_tags` keeps all that
    carry one of the tags. 0 is as good as no rule, and rules that amount to none are an InvalidRequest.
    """

    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within: Span | None = None
    keep_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) or 0 for name in _COUNTS}
        for name, count in counts.items():
            if count < 0:
                raise InvalidRequest(f"{name} is {count}", cause="the number of snapshots to keep cannot be negative")
        if "" in self.keep_tags:
            raise InvalidRequest("keep_tags holds an empty tag", cause="no snapshot carries it, so it protects nothing")
        if not (any(counts.values()) or self.keep_within or self.keep_tags):
            self._refuse()

    def _refuse(self) -> NoReturn:
        """Tell of rules that keep nothing, by the rules that were given as 0, if any."""
        zeros = [name for name in (*_COUNTS, "keep_within") if getattr(self, name) is not None]
        told = ", ".join(f"{name} is 0" for name in zeros)
        raise InvalidRequest(
            "the rules keep nothing" if zeros else "no rule says what to keep",
            cause=f"{told or 'there is none'}: every snapshot but the newest of each source would go",
            hint="keep something, for example --keep-daily 7 --keep-weekly 4 --keep-monthly 12; "
            "`backstay delete` drops single snapshots",
        )


class Candidate(Protocol):
    """What retention looks at; `source` tells sources of one host apart, `time` is aware, `id` is unique."""

    @property
    def id(self) -> str: ...
    @property
    def time(self) -> datetime: ...
    @property
    def host(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def tags(self) -> Collection[str]: ...


CandidateT = TypeVar("CandidateT", bound=Candidate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision(Generic[CandidateT]):
    """Whether one candidate stays, and every reason for it; there is always one."""

    candidate: CandidateT
    keep: bool
    reasons: tuple[str, ...]


def decide(
    candidates: Iterable[CandidateT], rules: RetentionRules, *, now: datetime, zone: tzinfo = UTC
) -> list[Decision[CandidateT]]:
    """One decision per candidate, sorted by host and source, newest first; the order of the input does not matter.

    The rules apply to each host and source alone, on the calendar of `zone`; of equal times the greater id is the
    newer. The newest snapshot of every source stays whatever the rules say. Snapshots later than `now` come from
    a clock that was wrong: they stay, and no rule counts them or measures from them.
    """
    groups: dict[tuple[str, str], list[_Case[CandidateT]]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.host, candidate.source), []).append(_Case(candidate))
    decisions: list[Decision[CandidateT]] = []
    for _, cases in sorted(groups.items(), key=lambda group: group[0]):
        newest_first = sorted(cases, key=_Case.order, reverse=True)
        _apply(rules, newest_first, now, zone)
        decisions.extend(case.decision() for case in newest_first)
    return decisions


@dataclass(eq=False, slots=True)
class _Case(Generic[CandidateT]):
    """A candidate while rules are applied: what keeps it, and the periods of which a newer snapshot is kept."""

    candidate: CandidateT
    keeps: list[str] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)

    def order(self) -> tuple[datetime, str]:
        return self.at(UTC), self.candidate.id

    def at(self, zone: tzinfo) -> datetime:
        """The candidate's time in a zone, also where the zone's calendar ends before it."""
        try:
            return self.candidate.time.astimezone(zone)
        except OverflowError:
            return self.candidate.time

    def decision(self) -> Decision[CandidateT]:
        drops = tuple(f"a newer snapshot of {period} is kept" for period in self.covered) or ("no rule keeps it",)
        return Decision(candidate=self.candidate, keep=bool(self.keeps), reasons=tuple(self.keeps) or drops)


def _apply(rules: RetentionRules, newest_first: Sequence[_Case[CandidateT]], now: datetime, zone: tzinfo) -> None:
    known = [case for case in newest_first if case.at(UTC) <= now]
    for case in newest_first[: len(newest_first) - len(known)]:
        case.keeps.append("time lies in the future")
    _keep_last(known, rules.keep_last or 0)
    for word, limit, period in _periods(rules):
        _keep_periods(known, [period(case.at(zone)) for case in known], word, limit or 0)
    if rules.keep_within:
        _keep_within(known, rules.keep_within, zone)
    _keep_tagged(known, rules.keep_tags)
    (known or newest_first)[0].keeps.append("newest of its source")


def _keep_last(known: Sequence[_Case[CandidateT]], limit: int) -> None:
    for place, case in enumerate(known[:limit], start=1):
        case.keeps.append(f"last ({place} of {limit})")


def _keep_periods(known: Sequence[_Case[CandidateT]], periods: Sequence[str], word: str, limit: int) -> None:
    used: set[str] = set()  # a set, not the last one: clocks set back over midnight make a day come twice
    for case, period in zip(known, periods, strict=True):
        if period in used:
            case.covered.append(period)
        elif len(used) < limit:
            used.add(period)
            case.keeps.append(f"{word} {period} ({len(used)} of {limit})")


def _keep_within(known: Sequence[_Case[CandidateT]], span: Span, zone: tzinfo) -> None:
    if known:
        start = span.subtract_from(known[0].at(zone))
        for case in known:
            if case.at(UTC) >= start:
                case.keeps.append(f"within {span}")


def _keep_tagged(known: Sequence[_Case[CandidateT]], tags: tuple[str, ...]) -> None:
    for case in known:
        case.keeps.extend(f"tag {tag}" for tag in tags if tag in case.candidate.tags)


def _periods(rules: RetentionRules) -> Iterator[tuple[str, int | None, Callable[[datetime], str]]]:
    yield "hourly", rules.keep_hourly, _hour
    yield "daily", rules.keep_daily, _day
    yield "weekly", rules.keep_weekly, _week
    yield "monthly", rules.keep_monthly, _month
    yield "yearly", rules.keep_yearly, _year


def _hour(local: datetime) -> str:
    return f"{_day(local)} {local:%H:00%z}"  # the offset tells apart the two hours of a night when clocks go back


def _day(local: datetime) -> str:
    return local.date().isoformat()


def _week(local: datetime) -> str:
    year, week, _ = local.isocalendar()
    return f"{year:04}-W{week:02}"


def _month(local: datetime) -> str:
    return f"{local.year:04}-{local.month:02}"


def _year(local: datetime) -> str:
    return f"{local.year:04}"
