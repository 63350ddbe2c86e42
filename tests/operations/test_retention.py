"""Retention: examples from a table, laws on generated histories, and a check that the laws can fail."""

from __future__ import annotations

import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import groupby
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.core.times import Span
from backstay.errors import InvalidRequest
from backstay.operations.retention import rules as retention
from backstay.operations.retention.rules import Decision, RetentionRules, decide

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
PERIODS: dict[str, str] = {
    "hourly": "%Y%m%d%H%z",
    "daily": "%Y%m%d",
    "weekly": "%G%V",
    "monthly": "%Y%m",
    "yearly": "%Y",
}
COUNTS = ("keep_last", *(f"keep_{word}" for word in PERIODS))


@dataclass(frozen=True)
class Snap:
    id: str
    time: datetime
    host: str = "web1"
    source: str = "/srv"
    tags: tuple[str, ...] = ()


def at(text: str) -> datetime:
    """A time of a table: `11-18 14:00` of 2026 or a whole ISO time, UTC where no offset is written."""
    moment = datetime.fromisoformat(text if text[4] == "-" else f"2026-{text}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def history(*times: str) -> list[Snap]:
    return [Snap(f"s{place}", at(text)) for place, text in enumerate(times)]


def rules_of(values: dict[str, Any]) -> RetentionRules:
    return RetentionRules(**values)


def kept(decisions: Sequence[Decision[Snap]]) -> set[str]:
    return {decision.candidate.id for decision in decisions if decision.keep}


def reasons(decisions: Sequence[Decision[Snap]]) -> dict[str, tuple[str, ...]]:
    return {decision.candidate.id: decision.reasons for decision in decisions}


# --- examples ---------------------------------------------------------------------------------------------------------

FOUR_DAYS = ("11-20 02:00", "11-19 22:00", "11-19 02:00", "11-18 02:00", "11-15 02:00")


@pytest.mark.parametrize(
    ("rules", "times", "places"),
    [
        pytest.param({"keep_last": 2}, FOUR_DAYS, {0, 1}, id="last"),
        pytest.param({"keep_last": 9}, FOUR_DAYS, {0, 1, 2, 3, 4}, id="more than there are"),
        pytest.param(
            {"keep_hourly": 2}, ("11-20 02:40", "11-20 02:00", "11-20 01:59", "11-19 01:00"), {0, 2}, id="hourly"
        ),
        pytest.param({"keep_daily": 3}, FOUR_DAYS, {0, 1, 3}, id="a day without a snapshot uses up nothing"),
        pytest.param({"keep_weekly": 2}, FOUR_DAYS, {0, 4}, id="weeks begin on Monday"),
        pytest.param({"keep_weekly": 9}, ("2027-01-01", "2026-12-28", "2026-12-27"), {0, 2}, id="a week over new year"),
        pytest.param({"keep_monthly": 2}, ("11-20", "11-01", "10-31", "10-01", "09-30"), {0, 2}, id="monthly"),
        pytest.param({"keep_yearly": 2}, ("11-20", "01-01", "2025-12-31", "2024-12-31"), {0, 2}, id="yearly"),
        pytest.param(
            {"keep_daily": 1, "keep_yearly": 2}, ("11-20", "11-19", "2025-06-01"), {0, 2}, id="the rules add up"
        ),
        pytest.param({"keep_last": 0, "keep_daily": 1}, FOUR_DAYS, {0}, id="0 is no rule"),
        pytest.param({"keep_within": Span(days=1)}, FOUR_DAYS, {0, 1, 2}, id="within holds its first moment"),
        pytest.param(
            {"keep_within": Span(months=1)}, ("2026-03-31", "2026-02-28", "2026-02-27"), {0, 1}, id="within a month"
        ),
        pytest.param({"keep_within": Span(years=9999)}, FOUR_DAYS, {0, 1, 2, 3, 4}, id="within for ever"),
        pytest.param({"keep_tags": ("gold",)}, FOUR_DAYS, {0}, id="the newest stays without a rule for it"),
    ],
)
def test_rules_keep(rules: dict[str, Any], times: tuple[str, ...], places: set[int]) -> None:
    now = at("2027-02-01")
    assert kept(decide(history(*times), rules_of(rules), now=now)) == {f"s{place}" for place in places}


def test_within_is_measured_from_the_newest_so_a_silent_host_loses_nothing() -> None:
    old = history("2025-01-10", "2025-01-09", "2025-01-01")
    assert kept(decide(old, RetentionRules(keep_within=Span(days=5)), now=NOW)) == {"s0", "s1"}


def test_every_reason_is_given() -> None:
    snaps = [
        *history("2026-11-18 14:00", "2026-11-18 09:00", "2026-11-17 14:00", "2026-10-01"),
        Snap("s4", at("2026-09-01"), tags=("keepme",)),
    ]
    rules = RetentionRules(keep_last=1, keep_daily=2, keep_within=Span(hours=5), keep_tags=("keepme", "gold"))
    assert reasons(decide(snaps, rules, now=NOW)) == {
        "s0": ("last (1 of 1)", "daily 2026-11-18 (1 of 2)", "within 5h", "newest of its source"),
        "s1": ("within 5h",),
        "s2": ("daily 2026-11-17 (2 of 2)",),
        "s3": ("no rule keeps it",),
        "s4": ("tag keepme",),
    }


def test_a_drop_names_the_periods_that_a_newer_snapshot_stands_for() -> None:
    rules = RetentionRules(keep_hourly=1, keep_daily=1, keep_weekly=1, keep_monthly=1, keep_yearly=1)
    told = reasons(decide(history("2026-11-18 14:30", "2026-11-18 14:00", "2026-11-16 14:00"), rules, now=NOW))
    assert told["s1"] == tuple(
        f"a newer snapshot of {period} is kept"
        for period in ("2026-11-18 14:00+0000", "2026-11-18", "2026-W47", "2026-11", "2026")
    )
    assert told["s2"] == tuple(f"a newer snapshot of {period} is kept" for period in ("2026-W47", "2026-11", "2026"))


def test_a_time_in_the_future_is_kept_and_counts_for_nothing() -> None:
    snaps = history("2099-01-01", "2026-11-20 12:00", "2026-11-19", "2026-11-18")
    rules = RetentionRules(keep_last=1, keep_daily=1, keep_within=Span(hours=1), keep_tags=("x",))
    told = reasons(decide(snaps, rules, now=NOW))
    assert told["s0"] == ("time lies in the future",)
    assert told["s1"] == ("last (1 of 1)", "daily 2026-11-20 (1 of 1)", "within 1h", "newest of its source")
    assert told["s2"] == told["s3"] == ("no rule keeps it",)


def test_where_all_times_lie_in_the_future_all_are_kept() -> None:
    rules = RetentionRules(keep_last=1, keep_within=Span(days=1))
    told = reasons(decide(history("2098-01-01", "2099-01-01"), rules, now=NOW))
    assert told["s1"] == ("time lies in the future", "newest of its source")
    assert told["s0"] == ("time lies in the future",)


def test_each_host_and_each_source_is_a_group_of_its_own() -> None:
    snaps = [Snap(f"{host}{source}", NOW, host, source) for host in "ba" for source in ("/y", "/x")]
    decisions = decide(snaps, RetentionRules(keep_last=1), now=NOW)
    assert [decision.candidate.id for decision in decisions] == ["a/x", "a/y", "b/x", "b/y"]
    assert all(decision.keep for decision in decisions)


def test_of_equal_times_the_greater_id_is_newer() -> None:
    snaps = [Snap(name, NOW) for name in "bca"]
    decisions = decide(snaps, RetentionRules(keep_last=1), now=NOW)
    assert [decision.candidate.id for decision in decisions] == ["c", "b", "a"]
    assert kept(decisions) == {"c"}


def test_nothing_in_nothing_out() -> None:
    assert decide([], RetentionRules(keep_last=1), now=NOW) == []


def test_times_at_the_ends_of_the_calendar_do_no_harm() -> None:
    ends = [
        Snap("first", datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))),
        Snap("last", datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))),
        Snap("today", NOW),
    ]
    rules = RetentionRules(keep_yearly=2, keep_hourly=2)
    told = reasons(decide(ends, rules, now=NOW, zone=ZoneInfo("America/New_York")))
    assert told["last"] == ("time lies in the future",)
    assert told["first"][-1] == "yearly 0001 (2 of 2)"


# --- clocks that change -----------------------------------------------------------------------------------------------


def test_days_are_those_of_the_zone() -> None:
    snaps = history(
        "2026-11-17 23:30+00:00", "2026-11-17 22:30+00:00"
    )  # 00:30 on the 18th and 23:30 on the 17th in Berlin
    rules = RetentionRules(keep_daily=5)
    assert kept(decide(snaps, rules, now=NOW)) == {"s0"}
    assert kept(decide(snaps, rules, now=NOW, zone=BERLIN)) == {"s0", "s1"}


@pytest.mark.parametrize(
    ("first", "hours"), [("2026-03-28 23:00", 23), ("2026-10-24 22:00", 25), ("2026-11-17 23:00", 24)]
)
def test_a_day_is_as_long_as_the_clocks_make_it(first: str, hours: int) -> None:
    snaps = [Snap(f"{hour:02}", at(first) + timedelta(hours=hour)) for hour in range(hours)]
    inside = decide(snaps, RetentionRules(keep_daily=9), now=NOW, zone=BERLIN)
    assert kept(inside) == {f"{hours - 1:02}"}
    around = [
        *snaps,
        Snap("after", at(first) + timedelta(hours=hours)),
        Snap("before", at(first) - timedelta(seconds=1)),
    ]
    assert kept(decide(around, RetentionRules(keep_daily=9), now=NOW, zone=BERLIN)) == {
        "after",
        f"{hours - 1:02}",
        "before",
    }


def test_the_hour_that_comes_twice_is_two_hours_also_for_times_of_that_zone() -> None:
    early = datetime(2026, 10, 25, 2, 50, tzinfo=BERLIN)
    late = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)  # twenty minutes after the early one
    decisions = decide([Snap("late", late), Snap("early", early)], RetentionRules(keep_hourly=2), now=NOW, zone=BERLIN)
    assert [decision.candidate.id for decision in decisions] == ["late", "early"]
    assert [decision.reasons[0] for decision in decisions] == [
        "hourly 2026-10-25 02:00+0100 (1 of 2)",
        "hourly 2026-10-25 02:00+0200 (2 of 2)",
    ]


def test_a_day_that_comes_twice_is_one_day() -> None:
    # Newfoundland set its clocks back one hour at 00:01: Sunday began, was Saturday again, and began once more.
    zone = ZoneInfo("America/St_Johns")
    snaps = history("2010-11-07 03:40", "2010-11-07 02:40", "2010-11-07 02:30:30", "2010-11-07 02:00")
    days = [snap.time.astimezone(zone).day for snap in snaps]
    assert days == [7, 6, 7, 6]
    assert kept(decide(snaps, RetentionRules(keep_daily=9), now=NOW, zone=zone)) == {"s0", "s1"}


# --- requests that make no sense --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [{}, {"keep_last": None, "keep_tags": ()}])
def test_no_rules_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="no rule says what to keep"):
        rules_of(rules)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"keep_last": 0}, "keep_last is 0:"),
        (dict.fromkeys(COUNTS, 0), "keep_last is 0, keep_hourly is 0, .*, keep_yearly is 0:"),
        ({"keep_within": Span()}, "keep_within is 0:"),
        ({"keep_last": 0, "keep_within": Span(), "keep_tags": ()}, "keep_last is 0, keep_within is 0:"),
    ],
)
def test_rules_that_keep_nothing_are_told_by_name(rules: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=f"the rules keep nothing: {told}"):
        rules_of(rules)


@pytest.mark.parametrize("name", COUNTS)
def test_negative_counts_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} is -1"):
        rules_of({"keep_tags": ("a",), name: -1})


def test_an_empty_tag_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty tag"):
        RetentionRules(keep_last=1, keep_tags=("a", ""))


# --- laws -------------------------------------------------------------------------------------------------------------

Decide = Callable[..., list[Decision[Snap]]]


@dataclass(frozen=True)
class Scene:
    """One history with the rules and the calendar to apply to it."""

    snaps: tuple[Snap, ...]
    rules: RetentionRules
    zone: tzinfo

    def decided(self, decide: Decide, snaps: Sequence[Snap] | None = None) -> list[Decision[Snap]]:
        return decide(self.snaps if snaps is None else snaps, self.rules, now=NOW, zone=self.zone)

    def groups(self) -> list[list[Snap]]:
        """Each group, newest first."""
        ordered = sorted(self.snaps, key=lambda snap: (snap.time.astimezone(UTC), snap.id), reverse=True)
        by_group = sorted(ordered, key=lambda snap: (snap.host, snap.source))
        return [list(group) for _, group in groupby(by_group, key=lambda snap: (snap.host, snap.source))]


def law_one_decision_each(decide: Decide, scene: Scene) -> None:
    decisions = scene.decided(decide)
    assert Counter(decision.candidate for decision in decisions) == Counter(scene.snaps)
    assert all(decision.reasons for decision in decisions)


def law_newest_stays(decide: Decide, scene: Scene) -> None:
    stays = kept(scene.decided(decide))
    for group in scene.groups():
        assert group[0].id in stays
        past = [snap for snap in group if snap.time <= NOW]
        assert not past or past[0].id in stays


def law_future_stays(decide: Decide, scene: Scene) -> None:
    assert {snap.id for snap in scene.snaps if snap.time > NOW} <= kept(scene.decided(decide))


def law_raising_a_rule_drops_nothing(decide: Decide, scene: Scene) -> None:
    before = kept(scene.decided(decide))
    for name in COUNTS:
        raised: dict[str, Any] = {name: (getattr(scene.rules, name) or 0) + 1}
        more = replace(scene.rules, **raised)
        assert before <= kept(replace(scene, rules=more).decided(decide))


def law_count_is_bounded(decide: Decide, scene: Scene) -> None:
    bare = replace(scene.rules, keep_last=scene.rules.keep_last or 1, keep_within=None, keep_tags=())
    stays = kept(replace(scene, rules=bare).decided(decide))
    most = sum(getattr(bare, name) or 0 for name in COUNTS)
    for group in scene.groups():
        past = {snap.id for snap in group if snap.time <= NOW}
        assert min(len(past), bare.keep_last or 0) <= len(stays & past) <= most


def law_order_does_not_matter(decide: Decide, scene: Scene) -> None:
    shuffled = random.Random(len(scene.snaps)).sample(scene.snaps, len(scene.snaps))
    assert scene.decided(decide, shuffled) == scene.decided(decide)


def law_groups_do_not_touch(decide: Decide, scene: Scene) -> None:
    alone = [decision for group in scene.groups() for decision in scene.decided(decide, group)]
    assert scene.decided(decide) == alone


def law_a_second_prune_drops_nothing(decide: Decide, scene: Scene) -> None:
    rest = [decision.candidate for decision in scene.decided(decide) if decision.keep]
    assert all(decision.keep for decision in scene.decided(decide, rest))


def law_definition(decide: Decide, scene: Scene) -> None:
    """The rules as a reader would define them, one snapshot at a time and without any order of work."""
    expected = {snap.id for group in scene.groups() for snap in group if stays_by_definition(snap, group, scene)}
    assert kept(scene.decided(decide)) == expected


def stays_by_definition(snap: Snap, group: Sequence[Snap], scene: Scene) -> bool:
    if snap.time > NOW:
        return True
    rules, past = scene.rules, [other for other in group if other.time <= NOW]
    newer = past[: past.index(snap)]
    if not newer or len(newer) < (rules.keep_last or 0) or set(snap.tags) & set(rules.keep_tags):
        return True
    span = rules.keep_within
    if span and snap.time >= span.subtract_from(past[0].time.astimezone(scene.zone)):
        return True
    for word, form in PERIODS.items():
        later = {other.time.astimezone(scene.zone).strftime(form) for other in newer}
        own = snap.time.astimezone(scene.zone).strftime(form)
        if own not in later and len(later) < (getattr(rules, f"keep_{word}") or 0):
            return True
    return False


LAWS: list[Callable[[Decide, Scene], None]] = [
    law for name, law in sorted(globals().items()) if name.startswith("law_")
]

counts = st.none() | st.integers(0, 4)
moments = st.one_of(  # one month, two years, two days in which Berlin sets its clocks back
    st.integers(-31 * 1440, 5 * 1440).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.integers(-720, 10).map(lambda days: NOW + timedelta(days=days)),
    st.integers(0, 300).map(lambda tens: datetime(2026, 10, 24, 20, tzinfo=UTC) + timedelta(minutes=10 * tens)),
)
snapshots = st.lists(
    st.builds(
        Snap,
        id=st.text("0123456789abcdef", min_size=3, max_size=3),
        time=moments,
        host=st.sampled_from(["a", "b"]),
        source=st.sampled_from(["/x", "/y"]),
        tags=st.sampled_from([(), (), ("gold",), ("gold", "red")]),
    ),
    max_size=30,
    unique_by=lambda snap: snap.id,
).map(tuple)
spans = st.none() | st.builds(Span, months=st.integers(0, 2), days=st.integers(0, 9), hours=st.integers(0, 30))
all_rules = st.fixed_dictionaries(
    {
        **dict.fromkeys(COUNTS, counts),
        "keep_within": spans,
        "keep_tags": st.sampled_from([(), ("gold",), ("red", "blue")]),
    }
)
scenes = st.builds(
    Scene,
    snaps=snapshots,
    rules=all_rules.filter(lambda rules: any(rules.values())).map(rules_of),
    zone=st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")]),
)


@pytest.mark.property
@pytest.mark.parametrize("law", LAWS)
@given(scene=scenes)
def test_law(law: Callable[[Decide, Scene], None], scene: Scene) -> None:
    law(decide, scene)


# --- the laws can fail ------------------------------------------------------------------------------------------------

MUTATIONS = {
    "oldest first": ("reverse=True", "reverse=False"),
    "future counts": ("<= now]", "is not None]"),
    "now is the future": ("<= now]", "< now]"),
    "newest goes": ('[0].keeps.append("newest', '[0].covered.append("newest'),
    "last one short": ("known[:limit]", "known[: limit - 1]"),
    "last one more": ("known[:limit]", "known[: limit + 1]"),
    "period one more": ("len(used) < limit", "len(used) <= limit"),
    "period never used": ("used.add(period)", "used.add(word)"),
    "oldest of a period": ("zip(known, periods, strict=True)", "reversed(list(zip(known, periods, strict=True)))"),
    "calendar of UTC": ("period(case.at(zone))", "period(case.at(UTC))"),
    "hours without offset": (":%H:00%z}", ":%H:00}"),
    "weeks of the month": ("-W{week:02}", "-W{local.day // 7}"),
    "month without year": ('f"{local.year:04}-{local.month:02}"', 'f"{local.month:02}"'),
    "within leaves out its start": (">= start", "> start"),
    "within from now": ("known[0].at(zone))", "NOW)"),
    "all tags needed": ("for tag in tags if tag in", "for tag in tags[:1] if tag in"),
    "hosts are one": ("(candidate.host, candidate.source), []", "(candidate.source, ''), []"),
    "sources are one": ("(candidate.host, candidate.source), []", "(candidate.host, ''), []"),
    "ties by chance": ("self.at(UTC), self.candidate.id", "self.at(UTC), ''"),
}


def mutant(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """`decide` of a copy of the module in which one rule is broken."""
    source = inspect.getsource(retention)
    assert source.count(old) == 1
    module = ModuleType("retention_mutant")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__dict__["NOW"] = NOW
    exec(source.replace(old, new), module.__dict__)
    broken: Decide = module.__dict__["decide"]
    return broken


def some_scenes(count: int = 300) -> list[Scene]:
    """The same histories in every run, with few distinct times, so that ties and borders occur."""
    rng = random.Random(20261120)
    return [some_scene(rng) for _ in range(count)]


def some_scene(rng: random.Random) -> Scene:
    start, step, fitting = rng.choice(
        [
            (NOW, timedelta(hours=12), "keep_daily"),
            (NOW, timedelta(days=1), "keep_weekly"),
            (datetime(2026, 11, 18, 2, tzinfo=UTC), timedelta(minutes=30), "keep_daily"),
            (datetime(2026, 10, 25, 2, tzinfo=UTC), timedelta(minutes=30), "keep_hourly"),
            (datetime(2026, 1, 2, tzinfo=UTC), timedelta(days=60), "keep_monthly"),
        ]
    )
    snaps = tuple(
        Snap(
            f"{place:02}",
            start + step * rng.randint(-14, 1),
            rng.choice("aaab"),
            rng.choice("xxxy"),
            rng.choice([(), (), (), ("red",)]),
        )
        for place in rng.sample(range(99), 16)
    )
    chosen: dict[str, Any] = {rng.choice(COUNTS): rng.randint(0, 2), fitting: rng.choice([0, 2, 6])}
    chosen["keep_within"] = rng.choice([None, Span(days=1), Span(hours=1)])
    chosen["keep_tags"] = rng.choice([(), ("gold", "red")])
    if not any(chosen.values()):
        chosen["keep_monthly"] = 2
    return Scene(snaps, rules_of(chosen), rng.choice([UTC, BERLIN]))


def laws_hold(decide: Decide) -> bool:
    try:
        for scene in some_scenes():
            for law in LAWS:
                law(decide, scene)
    except AssertionError:
        return False
    return True


def test_the_laws_hold_for_an_unbroken_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert laws_hold(mutant("def decide(", "def decide(", monkeypatch))


@pytest.mark.parametrize("broken", MUTATIONS)
def test_a_broken_rule_breaks_a_law(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not laws_hold(mutant(*MUTATIONS[broken], monkeypatch))


def test_every_count_is_in_the_laws() -> None:
    assert {field.name for field in fields(RetentionRules)} == {*COUNTS, "keep_within", "keep_tags"}
